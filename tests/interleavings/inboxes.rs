//! Requests reach the loop, or those who made them are told.

use std::sync::Arc;

use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::check;
use super::inbox::{Inbox, Told};
use super::pause::pause_until;

/// What the loop sleeps at: as its channel of messages, with room for one.
#[derive(Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.has_rung.lock().unwrap() = true;
        self.rings.notify_one();
    }

    fn has_rung(&self) -> bool {
        std::mem::take(&mut *self.has_rung.lock().unwrap())
    }

    fn wait(&self) {
        let mut has_rung = self.has_rung.lock().unwrap();
        while !*has_rung {
            has_rung = self.rings.wait(has_rung).unwrap();
        }
        *has_rung = false;
    }
}

/// As a handle does.
fn tell(inbox: &Inbox<u32>, bell: &Bell, request: u32) {
    if inbox.tell_when_there_is_room(request) == Told::Unseen {
        bell.ring();
    }
}

/// As the driver does: it looks for a moment, and then sleeps until it is woken.
fn wait(inbox: &Inbox<u32>, bell: &Bell) {
    inbox.set_watched(true);
    let mut has_rung = false;
    pause_until(|| {
        has_rung |= bell.has_rung();
        has_rung || inbox.is_filled()
    });
    if !inbox.set_watched(false) && !has_rung {
        bell.wait();
    }
}

#[test]
fn a_request_wakes_the_loop() {
    check(|| {
        // With room for two, so that they are waited for by who tells more.
        let (inbox, bell) = (Arc::new(Inbox::new(2)), Arc::new(Bell::default()));
        let tellers = [[1, 2], [3, 4]].map(|requests| {
            let (inbox, bell) = (Arc::clone(&inbox), Arc::clone(&bell));
            thread::spawn(move || requests.map(|request| tell(&inbox, &bell, request)))
        });
        let mut taken = Vec::new();
        while taken.len() < 4 {
            wait(&inbox, &bell);
            taken.extend(inbox.take());
        }
        let of = |requests: [u32; 2]| taken.iter().filter(move |taken| requests.contains(taken));
        assert!(of([1, 2]).eq(&[1, 2]) && of([3, 4]).eq(&[3, 4]), "in their order: {taken:?}");
        for teller in tellers {
            teller.join().unwrap();
        }
    });
}

#[test]
fn a_request_is_taken_given_back_or_refused() {
    check(|| {
        let inbox = Arc::new(Inbox::new(1));
        let tellers = [1, 2, 3].map(|request| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                (inbox.tell_when_there_is_room(request) == Told::Over).then_some(request)
            })
        });
        let mut all = inbox.take();
        all.extend(inbox.shut());
        all.extend(tellers.into_iter().filter_map(|teller| teller.join().unwrap()));
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert_eq!(inbox.tell(4), Told::Over);
    });
}
