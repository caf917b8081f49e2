//! From `retry_on`, `fail_on`, `skip_on` and `retry_cost` to the rules of a retry policy.

use std::str::FromStr as _;
use std::sync::Arc;

use keelboat_engine::{Exit, FailureClass, FailureKind, RETRY_COST, Response, RetryRule, Shortage};
use nix::sys::signal::Signal;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Reader, Spot, in_order, integer_of};

/// The most that one failure may cost, in retries.
const COST_MAX: f64 = 1_000.0;

const LISTS: [&str; 3] = ["skip_on", "fail_on", "retry_on"];

const COST_HELP: &str =
    "write what one such failure costs of `retries`, such as 0, 0.5, 2 or \"all\"";

/// What one table says of particular failures; `None` where it says nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleLists {
    skip_on: Option<Vec<i32>>,
    fail_on: Option<Vec<i32>>,
    retry_on: Option<Vec<i32>>,
    costs: Option<Vec<(FailureKind, Response)>>,
}

impl RuleLists {
    /// These lists, and those of `defaults` where these say nothing.
    pub(super) fn over(self, defaults: &Self) -> Self {
        Self {
            skip_on: self.skip_on.or_else(|| defaults.skip_on.clone()),
            fail_on: self.fail_on.or_else(|| defaults.fail_on.clone()),
            retry_on: self.retry_on.or_else(|| defaults.retry_on.clone()),
            costs: self.costs.or_else(|| defaults.costs.clone()),
        }
    }

    /// As rules, of which the first that applies counts. Where exit codes are named that are worth
    /// another try, no other one is.
    pub(super) fn rules(&self) -> Arc<[RetryRule]> {
        let all = |codes: &Option<Vec<i32>>, then: Response| {
            let codes = codes.clone().unwrap_or_default().into_iter();
            codes.map(move |code| (FailureKind::Exit(Exit::Code(code)), then))
        };
        let costs = self.costs.clone().unwrap_or_default();
        let others = self.retry_on.is_some().then_some((FailureKind::AnyExit, Response::Fail));
        all(&self.skip_on, Response::Skip)
            .chain(all(&self.fail_on, Response::Fail))
            .chain(costs)
            .chain(all(&self.retry_on, Response::Retry { cost: RETRY_COST }))
            .chain(others)
            .map(|(on, then)| RetryRule { on, then })
            .collect()
    }
}

impl Reader<'_> {
    pub(super) fn retry_rules(&mut self, table: &DeTable<'_>) -> RuleLists {
        let [skip_on, fail_on, retry_on] =
            LISTS.map(|key| table.get(key).map(|value| self.exit_codes(value, key)));
        self.check_exit_codes(table);
        let costs = table.get("retry_cost").map(|value| self.costs(value));
        RuleLists { skip_on, fail_on, retry_on, costs }
    }

    fn exit_codes(&mut self, value: &Spot<'_>, what: &str) -> Vec<i32> {
        let codes = codes_of(value).filter_map(|item| {
            let code = integer_of(item.get_ref()).filter(|code| (1..=255).contains(code));
            if code.is_none() {
                let problem = self
                    .problem(item.span(), format!("{what} needs exit codes, from 1 to 255"))
                    .labelled("not an exit code of a failure")
                    .help(format!("write for example {what} = [75, 137]"));
                self.problems.push(problem);
            }
            i32::try_from(code?).ok()
        });
        codes.collect()
    }

    /// One exit code cannot mean two things.
    fn check_exit_codes(&mut self, table: &DeTable<'_>) {
        let mut seen = Vec::new();
        for key in LISTS {
            for item in table.get(key).into_iter().flat_map(codes_of) {
                let Some(code) = integer_of(item.get_ref()) else { continue };
                let before = seen.iter().find(|(known, _, of)| *known == code && *of != key);
                if let Some((_, span, of)) = before.cloned() {
                    let message = format!("exit code {code} is in both {of} and {key}");
                    let problem = self
                        .problem(item.span(), message)
                        .help("keep it in one of them: it can mean one thing");
                    let problem = self.sources.also(problem, self.place(span), "and here");
                    self.problems.push(problem);
                }
                seen.push((code, item.span(), key));
            }
        }
    }

    fn costs(&mut self, value: &Spot<'_>) -> Vec<(FailureKind, Response)> {
        let help = "write retry_cost = { timeout = \"all\", oom = 0.5, 75 = 0 }";
        let Some(table) = self.table(value, "retry_cost", help) else { return Vec::new() };
        let mut costs = Vec::new();
        for (key, value) in in_order(table) {
            let kinds = self.failure_kinds(key);
            if let Some(response) = self.cost(value) {
                costs.extend(kinds.into_iter().map(|kind| (kind, response)));
            }
        }
        costs
    }

    fn failure_kinds(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>) -> Vec<FailureKind> {
        let name: &str = key.get_ref();
        match name {
            "timeout" => return vec![FailureKind::Shortage(Shortage::Time)],
            "oom" => return vec![FailureKind::Shortage(Shortage::Memory)],
            "lost" => return vec![FailureKind::Class(FailureClass::InfrastructureLost)],
            _ => {}
        }
        if let Some(code) = name.parse().ok().filter(|code| (1..=255).contains(code)) {
            return vec![FailureKind::Exit(Exit::Code(code))];
        }
        if let Ok(signal) = Signal::from_str(name) {
            // A shell whose command is killed ends with an exit code that says so.
            let exits = [Exit::Signal(signal as i32), Exit::Code(128 + signal as i32)];
            return exits.map(FailureKind::Exit).into();
        }
        let problem = self
            .problem(key.span(), format!("`{name}` is no kind of failure"))
            .help("write an exit code, a signal such as SIGSEGV, `timeout`, `oom` or `lost`");
        self.problems.push(problem);
        Vec::new()
    }

    fn cost(&mut self, value: &Spot<'_>) -> Option<Response> {
        let number = match value.get_ref() {
            DeValue::String(text) if text.as_ref() == "all" => return Some(Response::Fail),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => {
                self.wrong_kind(value, "a cost", "a number of retries or \"all\"", COST_HELP);
                return None;
            }
        };
        let thousandths = number.filter(|cost: &f64| (0.0..=COST_MAX).contains(cost));
        let thousandths = thousandths.map(|cost| (cost * f64::from(RETRY_COST)).round());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, from 0 to a million"
        )]
        let cost = thousandths.map(|cost| cost as u32);
        if cost.is_none() {
            let problem = self
                .problem(value.span(), format!("a cost is from 0 to {COST_MAX} retries"))
                .help(COST_HELP);
            self.problems.push(problem);
        }
        cost.map(|cost| Response::Retry { cost })
    }
}

/// One exit code, or the items of a list of them.
fn codes_of<'v, 's>(value: &'v Spot<'s>) -> impl Iterator<Item = &'v Spot<'s>> {
    let list = value.get_ref().as_array();
    let one = list.is_none().then_some(value);
    list.into_iter().flat_map(|list| list.iter()).chain(one)
}
