//! A state that can't be used or written: said to whoever asks, and to the log when it changes.

use super::{Inner, Journal};

impl Inner {
    /// Why nothing can be allocated; `None` while it can.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.journal {
            Journal::Open(store) => {
                store.refusal().map(|reason| format!("the state can't be written: {reason}"))
            }
            Journal::Closed(reason) => Some(format!("the state can't be used: {reason}")),
        }
    }

    /// Tells the log once that the disk refuses, and once that it takes everything again: a disk
    /// stays full for days, and every request meets it.
    pub(super) fn tell_trouble(&mut self) {
        let Journal::Open(store) = &self.journal else { return };
        if store.refusal() == self.told_refusal.as_deref() {
            return;
        }
        self.told_refusal = store.refusal().map(str::to_owned);
        if let Some(reason) = &self.told_refusal {
            tracing::warn!("the state can't be written, and what needs it is refused: {reason}");
        } else {
            tracing::info!("the state can be written again");
        }
        self.count();
    }
}
