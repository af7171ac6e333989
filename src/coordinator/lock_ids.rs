//! The ids of allocations.

use rustix::rand::{GetRandomFlags, getrandom};
use uuid::{Builder, Uuid};

/// How many bytes an id is made of.
const LENGTH: usize = size_of::<uuid::Bytes>();

/// As many bytes as getrandom(2) always gives whole.
const AT_ONCE: usize = 256;

/// Makes random ids (RFC 9562, version 4). The kernel is asked for 16 at once: the question takes
/// longer than the answer.
#[derive(Debug, Default)]
pub(super) struct LockIds {
    random: Vec<u8>,
}

impl LockIds {
    /// Another one.
    pub(super) fn next(&mut self) -> Uuid {
        if self.random.is_empty() {
            self.random.resize(AT_ONCE, 0);
            let given = getrandom(&mut self.random[..], GetRandomFlags::empty());
            self.random.truncate(given.unwrap_or(0));
        }
        let Some((rest, bytes)) = self.random.split_last_chunk::<LENGTH>() else {
            // A kernel that gives no or too few has another way, and this knows it.
            self.random.clear();
            return Uuid::new_v4();
        };
        let lock_id = Builder::from_random_bytes(*bytes).into_uuid();
        self.random.truncate(rest.len());
        lock_id
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_are_alike_and_all_are_random_ones() {
        let mut lock_ids = LockIds::default();
        let all: HashSet<_> = (0..1000).map(|_| lock_ids.next()).collect();
        assert_eq!(all.len(), 1000);
        assert!(
            all.iter()
                .all(|id| id.get_version_num() == 4 && id.get_variant() == uuid::Variant::RFC4122)
        );
    }

    #[test]
    fn what_the_kernel_gave_too_little_of_is_not_used() {
        let mut lock_ids = LockIds { random: vec![7; LENGTH - 1] };
        let lock_id = lock_ids.next();
        assert!(!lock_id.as_bytes().starts_with(&[7; 6]), "{lock_id}");
        assert_eq!(lock_id.get_version_num(), 4);
    }
}
