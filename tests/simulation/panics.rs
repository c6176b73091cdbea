//! Panics of tasks: the runtime catches them, and a run must not pass by them.

use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics of this thread are remembered; those of earlier runs are forgotten.
pub fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            SEEN.with_borrow_mut(|seen| seen.push(info.to_string()));
            before(info);
        }));
    });
    SEEN.with_borrow_mut(Vec::clear);
}

/// The panics of this thread since it is watched.
pub fn seen() -> Vec<String> {
    SEEN.take()
}
