//! Bars for people: tasks, what runs, and each transfer, below the lines.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use keelboat_engine::Stamped;

use super::super::terminal::{bytes, plain, span};
use super::Shown;
use super::lines::Lines;
use crate::driver::{Observer, Start, TransferView, View};

/// Names of running tasks that are shown.
const RUNNING_MAX: usize = 3;

/// Transfers that are shown.
const TRANSFERS_MAX: usize = 6;

#[derive(Debug)]
pub(super) struct Bars {
    lines: Lines,
    screen: MultiProgress,
    tasks: ProgressBar,
    transfers: BTreeMap<String, ProgressBar>,
}

impl Bars {
    pub(super) fn new(mut lines: Lines) -> Self {
        let screen = MultiProgress::new();
        let tasks = screen.add(ProgressBar::new(0));
        let form = "    tasks [{bar:32}] {pos}/{len} {elapsed} {wide_msg}";
        tasks.set_style(style(form));
        lines.above = Some(screen.clone());
        Self { lines, screen, tasks, transfers: BTreeMap::new() }
    }

    fn show_transfers(&mut self, transfers: &[TransferView]) {
        let shown: Vec<&TransferView> = transfers.iter().take(TRANSFERS_MAX).collect();
        self.transfers.retain(|display, bar| {
            let stays = shown.iter().any(|transfer| transfer.display == *display);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for transfer in shown {
            let bar = self.transfers.entry(transfer.display.clone()).or_insert_with(|| {
                let bar = self.screen.add(ProgressBar::no_length());
                bar.set_style(style("    fetch [{bar:32}] {bytes}/{total_bytes} {wide_msg}"));
                bar
            });
            match transfer.total {
                Some(total) => bar.set_length(total),
                None => bar.unset_length(),
            }
            bar.set_position(transfer.done);
            let waits = transfer.waits.as_ref().map(|waits| format!(" ({waits})"));
            let text = format!("{}{}", transfer.display, waits.unwrap_or_default());
            bar.set_message(plain(&text));
        }
    }
}

fn style(form: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(form);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Observer for Bars {
    fn started(&mut self, start: &Start<'_>) {
        self.lines.started(start);
        self.tasks.set_length(u64::from(start.tasks));
    }

    fn fact(&mut self, stamped: &Stamped) {
        self.lines.fact(stamped);
    }

    fn progress(&mut self, view: &View<'_>) {
        self.lines.progress(view);
        self.tasks.set_length(u64::from(view.counts.total));
        self.tasks.set_position(u64::from(view.counts.ended()));
        let mut running: Vec<String> = view
            .running
            .iter()
            .take(RUNNING_MAX)
            .map(|(task, since)| format!("{} {}", plain(task), span(view.now.since(*since))))
            .collect();
        if view.running.len() > RUNNING_MAX {
            running.push(format!("and {} more", view.running.len() - RUNNING_MAX));
        }
        if view.transferred > 0 {
            running.push(format!("{} fetched", bytes(view.transferred)));
        }
        self.tasks.set_message(running.join(", "));
        self.show_transfers(&view.transfers);
    }

    fn warning(&mut self, text: &str) {
        self.lines.warning(text);
    }

    fn waiting(&mut self, text: &str) {
        self.lines.waiting(text);
    }

    fn wants_progress(&self) -> bool {
        true
    }
}

impl Shown for Bars {
    fn end(&mut self) {
        for bar in self.transfers.values() {
            bar.finish_and_clear();
        }
        self.tasks.finish_and_clear();
        self.lines.end();
    }
}
