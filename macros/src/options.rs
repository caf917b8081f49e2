//! What stands in the brackets of the attribute.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, ExprArray, ExprLit, ExprUnary, Ident, Lit, LitStr, Token, UnOp};

/// The options that there are.
const KNOWN: [&str; 13] = [
    "name",
    "version",
    "cores",
    "memory",
    "gpus",
    "disk",
    "priority",
    "retries",
    "timeout",
    "executor",
    "cache",
    "keep_scratch",
    "ignore",
];

/// All of them, as calls of methods.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) calls: Vec<TokenStream>,
    /// Parameters that make no difference.
    pub(crate) ignored: Vec<LitStr>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            if seen.contains(&key) {
                return Err(Error::new(key.span(), format!("`{key}` is there twice")));
            }
            if !KNOWN.iter().any(|known| key == known) {
                let message = format!("there is no option `{key}`: there are {}", KNOWN.join(", "));
                return Err(Error::new(key.span(), message));
            }
            if !input.peek(Token![=]) {
                return Err(Error::new(key.span(), format!("write {}", example(&key))));
            }
            input.parse::<Token![=]>()?;
            options.take(&key, &input.parse()?)?;
            seen.push(key);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

fn example(key: &Ident) -> &'static str {
    match key.to_string().as_str() {
        "name" => "name = \"align\"",
        "version" => "version = \"3\"",
        "cores" => "cores = 2",
        "memory" => "memory = \"2 GiB\"",
        "gpus" => "gpus = 1",
        "disk" => "disk = \"50 GB\"",
        "priority" => "priority = 5",
        "retries" => "retries = 3",
        "timeout" => "timeout = \"10 min\"",
        "executor" => "executor = \"gpu\" or executor = [\"gpu\", \"local\"]",
        "cache" => "cache = \"on\", \"off\", \"refresh\", \"read-only\" or \"failures\"",
        "keep_scratch" => "keep_scratch = \"never\", \"failed\" or \"always\"",
        _ => "ignore = [\"threads\"], with names of parameters",
    }
}

impl Options {
    fn take(&mut self, key: &Ident, value: &Expr) -> syn::Result<()> {
        let call = match key.to_string().as_str() {
            "name" | "version" => {
                let text = text(key, value)?;
                quote!(.#key(#text))
            }
            "cores" => {
                let number = number(key, value, 1..=i64::from(u32::MAX))?;
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                quote!(.cores(#number))
            }
            "gpus" | "retries" => {
                let number = number(key, value, 0..=i64::from(u32::MAX))?;
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                quote!(.#key(#number))
            }
            "priority" => {
                let number = number(key, value, i64::from(i32::MIN)..=i64::from(i32::MAX))?;
                let number = i32::try_from(number).unwrap_or_default();
                quote!(.priority(#number))
            }
            "memory" | "disk" => {
                let bytes = parsed(key, value, size)?;
                quote!(.#key(#bytes))
            }
            "timeout" => {
                let span = parsed(key, value, span)?;
                let (seconds, nanos) = (span.as_secs(), span.subsec_nanos());
                quote!(.timeout(::core::time::Duration::new(#seconds, #nanos)))
            }
            "executor" => {
                let labels = texts(key, value)?;
                quote!(#(.executor(#labels))*)
            }
            "cache" => {
                let kind = parsed(key, value, cache)?;
                quote!(.cache(::keelboat::flow::Cache::#kind))
            }
            "keep_scratch" => {
                let when = parsed(key, value, keep_scratch)?;
                quote!(.keep_scratch(::keelboat::flow::KeepScratch::#when))
            }
            _ => {
                self.ignored = texts(key, value)?;
                return Ok(());
            }
        };
        self.calls.push(call);
        Ok(())
    }
}

fn wrong(key: &Ident, value: &Expr) -> Error {
    Error::new_spanned(value, format!("write {}", example(key)))
}

fn text(key: &Ident, value: &Expr) -> syn::Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if !text.value().is_empty() => {
            Ok(text.clone())
        }
        _ => Err(wrong(key, value)),
    }
}

/// One text, or a list of them.
fn texts(key: &Ident, value: &Expr) -> syn::Result<Vec<LitStr>> {
    match value {
        Expr::Array(ExprArray { elems, .. }) if !elems.is_empty() => {
            elems.iter().map(|item| text(key, item)).collect()
        }
        _ => Ok(vec![text(key, value)?]),
    }
}

fn number(key: &Ident, value: &Expr, range: std::ops::RangeInclusive<i64>) -> syn::Result<i64> {
    let (sign, literal) = match value {
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => (-1, &**expr),
        other => (1, other),
    };
    let Expr::Lit(ExprLit { lit: Lit::Int(literal), .. }) = literal else {
        return Err(wrong(key, value));
    };
    let number = literal.base10_parse::<i64>().ok().map(|number| sign * number);
    number.filter(|number| range.contains(number)).ok_or_else(|| wrong(key, value))
}

/// A text that means something else.
fn parsed<T>(key: &Ident, value: &Expr, parse: fn(&str) -> Option<T>) -> syn::Result<T> {
    parse(&text(key, value)?.value()).ok_or_else(|| wrong(key, value))
}

/// Bytes, with a unit.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn span(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|span| !span.is_zero())
}

fn cache(text: &str) -> Option<Ident> {
    let kind = match text {
        "on" => "On",
        "off" => "Off",
        "refresh" => "Refresh",
        "read-only" => "ReadOnly",
        "failures" => "Failures",
        _ => return None,
    };
    Some(Ident::new(kind, proc_macro2::Span::call_site()))
}

fn keep_scratch(text: &str) -> Option<Ident> {
    let when = match text {
        "never" => "Never",
        "failed" => "Failed",
        "always" => "Always",
        _ => return None,
    };
    Some(Ident::new(when, proc_macro2::Span::call_site()))
}
