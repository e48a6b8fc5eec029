//! `loomctl doctor`.
