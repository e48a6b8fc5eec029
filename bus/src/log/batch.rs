//! What gathers while an append is under way, to go into the next one.
//!
//! A change that finds the writer idle does not wait; a thousand that do not cost one fsync.

use std::collections::{HashMap, VecDeque};

use super::entry::{Change, Commit, ENTRY_BYTES_MAX};

/// A batch takes no more once it has this many bytes.
pub const BATCH_BYTES: usize = 512 * 1024;

/// Bytes an event is counted as, beside its texts.
const EVENT_BYTES: usize = 320;

/// Commits in the order they were decided, each with what shall happen once it is durable.
///
/// `E` is an effect: a reply to send, an assignment to send. One commit never becomes two.
#[derive(Debug)]
pub struct Gatherer<E> {
    batches: VecDeque<Batch<E>>,
    close_at: usize,
}

/// What goes into one append.
#[derive(Debug)]
pub struct Batch<E> {
    /// What is appended.
    pub commit: Commit,
    /// What shall happen once it is durable, in order.
    pub effects: Vec<E>,
    bytes: usize,
    places: HashMap<String, usize>,
}

/// A commit that no entry can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change of {bytes} bytes cannot be committed: the limit is {ENTRY_BYTES_MAX}")]
pub struct TooLarge {
    /// Its size as estimated.
    pub bytes: usize,
}

impl<E> Default for Gatherer<E> {
    fn default() -> Self {
        Self::closing_at(BATCH_BYTES)
    }
}

impl<E> Gatherer<E> {
    /// Nothing gathered; batches close at so many bytes.
    pub fn closing_at(bytes: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            close_at: bytes,
        }
    }

    /// Adds a commit with its effects; refused, and nothing changes, if no entry can hold it.
    pub fn push(
        &mut self,
        commit: Commit,
        effects: impl IntoIterator<Item = E>,
    ) -> Result<(), TooLarge> {
        let bytes = size_of_commit(&commit);
        if bytes > ENTRY_BYTES_MAX {
            return Err(TooLarge { bytes });
        }
        let close_at = self.close_at;
        let fits = |batch: &&mut Batch<E>| batch.bytes + bytes <= close_at;
        if let Some(batch) = self.batches.back_mut().filter(fits) {
            batch.add(commit, bytes, effects);
        } else {
            let mut batch = Batch::empty();
            batch.add(commit, bytes, effects);
            self.batches.push_back(batch);
        }
        Ok(())
    }

    /// The oldest batch, for an append that begins now.
    pub fn take(&mut self) -> Option<Batch<E>> {
        self.batches.pop_front()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// How many effects wait.
    pub fn waiting(&self) -> usize {
        self.batches.iter().map(|batch| batch.effects.len()).sum()
    }

    /// How many bytes wait, as estimated.
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes).sum()
    }

    /// Everything that waits, when none of it will be committed: effects to undo or refuse.
    pub fn drain(&mut self) -> impl Iterator<Item = E> + use<'_, E> {
        self.batches.drain(..).flat_map(|batch| batch.effects)
    }
}

impl<E> Batch<E> {
    fn empty() -> Self {
        Self {
            commit: Commit::default(),
            effects: Vec::new(),
            bytes: 0,
            places: HashMap::new(),
        }
    }

    /// The size of the batch as estimated, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn add(&mut self, commit: Commit, bytes: usize, effects: impl IntoIterator<Item = E>) {
        self.bytes += bytes;
        for change in commit.changes {
            self.change(change);
        }
        self.commit.events.extend(commit.events);
        self.commit.queue_cursor = commit.queue_cursor.or(self.commit.queue_cursor);
        self.effects.extend(effects);
    }

    /// A batch is applied as a whole, so of several changes of a record the last one will do.
    fn change(&mut self, change: Change) {
        if let Some(&place) = self.places.get(&change.key) {
            let replaced = size_of_change(&self.commit.changes[place]);
            self.bytes = self.bytes.saturating_sub(replaced);
            self.commit.changes[place] = change;
        } else {
            self.places
                .insert(change.key.clone(), self.commit.changes.len());
            self.commit.changes.push(change);
        }
    }
}

fn size_of_change(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, bytes::Bytes::len) + 16
}

fn size_of_commit(commit: &Commit) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let events = commit.events.iter().map(|event| {
        let texts = text(&event.reason) + text(&event.by) + text(&event.request);
        EVENT_BYTES + texts + event.what.len()
    });
    commit.changes.iter().map(size_of_change).sum::<usize>() + events.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, bytes: usize) -> Commit {
        Commit {
            changes: vec![Change::put(key, vec![0; bytes])],
            ..Commit::default()
        }
    }

    #[test]
    fn what_gathers_goes_together_in_order_until_the_batch_is_full() {
        let mut gatherer = Gatherer::closing_at(1000);
        for n in 0..5 {
            gatherer.push(put(&format!("k{n}"), 300), [n]).unwrap();
        }
        assert_eq!(gatherer.waiting(), 5);
        let sizes: Vec<Vec<i32>> = std::iter::from_fn(|| gatherer.take())
            .map(|batch| batch.effects)
            .collect();
        assert_eq!(sizes, [vec![0, 1, 2], vec![3, 4]]);
    }

    #[test]
    fn one_commit_is_never_divided() {
        let mut gatherer = Gatherer::closing_at(100);
        gatherer.push(put("big", 5_000), [1]).unwrap();
        gatherer.push(put("small", 10), [2]).unwrap();
        assert_eq!(gatherer.take().unwrap().effects, [1]);
        assert_eq!(gatherer.take().unwrap().effects, [2]);
        assert!(gatherer.is_empty());
    }

    #[test]
    fn of_several_changes_of_a_record_the_last_one_counts() {
        let mut gatherer = Gatherer::default();
        gatherer.push(put("a", 1), [()]).unwrap();
        gatherer.push(put("b", 2), [()]).unwrap();
        gatherer.push(put("a", 3), [()]).unwrap();
        let changes = gatherer.take().unwrap().commit.changes;
        let lengths: Vec<_> = changes
            .iter()
            .map(|c| (c.key.as_str(), c.value.as_ref().unwrap().len()))
            .collect();
        assert_eq!(lengths, [("a", 3), ("b", 2)]);
    }

    #[test]
    fn what_no_entry_can_hold_is_refused_and_leaves_nothing() {
        let mut gatherer = Gatherer::default();
        let refused = gatherer.push(put("a", ENTRY_BYTES_MAX), [()]);
        assert!(refused.is_err());
        assert!(gatherer.is_empty());
    }
}
