//! What a record seldom has.

use serde::{Deserialize, Serialize};

/// An `Option` of what is seldom there, kept apart, so that records without it are small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seldom<T>(Option<Box<T>>);

impl<T> Seldom<T> {
    /// It is not there.
    pub const NONE: Self = Self(None);

    /// Whether it is there.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it is not there.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Takes it out if it is so.
    pub fn take_if(&mut self, so: impl FnOnce(&T) -> bool) -> Option<T> {
        if so(self.0.as_deref()?) {
            self.take()
        } else {
            None
        }
    }

    /// Puts it where the option is, and what was there here.
    pub fn swap(&mut self, other: &mut Option<T>) {
        let mine = self.take();
        *self = std::mem::replace(other, mine).into();
    }

    /// It, if it is there.
    pub fn as_ref(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The same, to be changed.
    pub fn as_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Takes it out.
    pub fn take(&mut self) -> Option<T> {
        self.0.take().map(|it| *it)
    }

    /// It, once or never.
    pub fn iter(&self) -> std::option::IntoIter<&T> {
        self.as_ref().into_iter()
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> std::option::IntoIter<&mut T> {
        self.as_mut().into_iter()
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T> From<Option<T>> for Seldom<T> {
    fn from(it: Option<T>) -> Self {
        Self(it.map(Box::new))
    }
}

impl<'a, T> IntoIterator for &'a Seldom<T> {
    type Item = &'a T;
    type IntoIter = std::option::IntoIter<&'a T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut Seldom<T> {
    type Item = &'a mut T;
    type IntoIter = std::option::IntoIter<&'a mut T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
