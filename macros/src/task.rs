//! The function, and beside it what makes a task of it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, FnArg, ItemFn, Pat, PatType, ReturnType, Safety, Type};

use crate::options::Options;

/// More than that no function may have that is called as a task.
const PARAMETERS_MAX: usize = 6;

pub(crate) fn expand(options: TokenStream, function: TokenStream) -> syn::Result<TokenStream> {
    let function: ItemFn = syn::parse2(function).map_err(|error| {
        Error::new(error.span(), "a task is a function: put the attribute before `fn`")
    })?;
    let options: Options = syn::parse2(options)?;
    let parameters = parameters(&function)?;
    let takes_context = parameters.first().is_some_and(|parameter| is_context(&parameter.ty));
    let arguments = &parameters[usize::from(takes_context)..];
    if let Some(seventh) = arguments.get(PARAMETERS_MAX) {
        let message = format!(
            "a task has at most {PARAMETERS_MAX} parameters: put several into a struct or a tuple"
        );
        return Err(Error::new_spanned(seventh, message));
    }
    let ignored = ignored(&options, arguments)?;
    let (name, visibility) = (&function.sig.ident, &function.vis);
    let types: Vec<&Type> = parameters.iter().map(|parameter| &*parameter.ty).collect();
    let value = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, value) => quote!(#value),
    };
    let names: Vec<_> = (0..types.len()).map(|at| format_ident!("p{at}")).collect();
    let (pointer, body) = if function.sig.asyncness.is_some() {
        let boxed = quote! {
            ::core::pin::Pin<::std::boxed::Box<
                dyn ::core::future::Future<Output = #value> + ::core::marker::Send
            >>
        };
        (
            quote!(fn(#(#types),*) -> #boxed),
            quote!(|#(#names),*| ::std::boxed::Box::pin(#name(#(#names),*))),
        )
    } else {
        (quote!(fn(#(#types),*) -> #value), quote!(#name))
    };
    let path = name.to_string();
    let calls = &options.calls;
    let ignore = (!ignored.is_empty()).then(|| quote!(.ignore([#(#ignored),*])));
    let doc = format!("The task that [`{name}`](fn@{name}) is, with its options.");
    Ok(quote! {
        #function

        #[doc = #doc]
        #[allow(non_camel_case_types, dead_code, reason = "it is called as the function is")]
        #[derive(Debug)]
        #visibility enum #name {}

        impl #name {
            /// The function with its options, ready to be called.
            #[allow(dead_code, reason = "the function may be called by itself only")]
            #visibility fn task(
                flow: &::keelboat::flow::Flow,
            ) -> ::keelboat::flow::FunctionTask<'_, #pointer> {
                let function: #pointer = #body;
                flow.task(function, ::core::concat!(::core::module_path!(), "::", #path))
                    #(#calls)* #ignore
            }
        }
    })
}

/// The parameters of a function that can be a task.
fn parameters(function: &ItemFn) -> syn::Result<Vec<&PatType>> {
    let signature = &function.sig;
    if let Some(generic) = signature.generics.params.first() {
        let message =
            "a task has no parameters of type or lifetime: name the types that it is called with";
        return Err(Error::new_spanned(generic, message));
    }
    if let Safety::Unsafe(token) = &signature.safety {
        return Err(Error::new_spanned(token, "a task is called without `unsafe`"));
    }
    let mut parameters = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                let message =
                    "a task is a function by itself, and no method: take `self` as an argument";
                return Err(Error::new_spanned(receiver, message));
            }
            FnArg::Typed(parameter) => {
                if let Type::Reference(_) | Type::ImplTrait(_) = &*parameter.ty {
                    let message = "a task owns what it is given: take a `String`, a `Vec` or another type of its own";
                    return Err(Error::new_spanned(&parameter.ty, message));
                }
                parameters.push(parameter);
            }
        }
    }
    Ok(parameters)
}

/// By its name: types are not known here.
fn is_context(parameter: &Type) -> bool {
    let Type::Path(path) = parameter else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Context")
}

/// The positions of the parameters that make no difference.
fn ignored(options: &Options, arguments: &[&PatType]) -> syn::Result<Vec<usize>> {
    let name_of = |parameter: &&PatType| match &*parameter.pat {
        Pat::Ident(name) => name.ident.to_string(),
        _ => String::new(),
    };
    let names: Vec<String> = arguments.iter().map(name_of).collect();
    let position = |ignored: &syn::LitStr| {
        let name = ignored.value();
        names.iter().position(|known| *known == name).ok_or_else(|| {
            let known = names.join(", ");
            Error::new(ignored.span(), format!("there is no parameter `{name}`: there are {known}"))
        })
    };
    options.ignored.iter().map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a mistake, and of which part.
    fn mistake(options: &str, function: &str) -> String {
        let error = expand(options.parse().unwrap(), function.parse().unwrap()).unwrap_err();
        let place = error.span().source_text().unwrap_or_default();
        format!("{place} | {error}")
    }

    fn made(options: &str, function: &str) -> String {
        expand(options.parse().unwrap(), function.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn options_become_calls() {
        let options = "name = \"a\", version = \"3\", cores = 2, memory = \"2 GiB\", retries = 3, \
            timeout = \"10 min\", executor = [\"gpu\", \"local\"], cache = \"read-only\", priority = -5, \
            keep_scratch = \"failed\", ignore = [\"threads\"],";
        let made = made(options, "pub async fn align(reads: PathBuf, threads: u32) -> u64 { 0 }");
        for part in [
            "pub enum align { }",
            ". name (\"a\")",
            ". version (\"3\")",
            ". cores (2u32)",
            ". memory (2147483648u64)",
            ". retries (3u32)",
            "Duration :: new (600u64 , 0u32)",
            ". executor (\"gpu\") . executor (\"local\")",
            "Cache :: ReadOnly",
            "KeepScratch :: Failed",
            ". priority (- 5i32)",
            ". ignore ([1usize])",
        ] {
            assert!(made.contains(part), "{part:?} is not in:\n{made}");
        }
        let plain = self::made("", "fn f(c: Context, x: u8) {}");
        assert!(plain.contains("fn (Context , u8) -> ()"), "{plain}");
        let ignoring = self::made("ignore = \"x\"", "fn f(c: flow::Context, x: u8) {}");
        assert!(ignoring.contains(". ignore ([0usize])"), "a context is no argument: {ignoring}");
    }

    #[test]
    fn mistakes_are_told_where_they_are_and_with_what_is_allowed() {
        let function = "fn f(x: u8) -> u8 { x }";
        for (options, place, told) in [
            ("colour = 3", "colour", "there are name, version, cores"),
            ("cores = \"2\"", "\"2\"", "write cores = 2"),
            ("cores = 0", "0", "write cores = 2"),
            ("memory = 5", "5", "memory = \"2 GiB\""),
            ("memory = \"2 gigs\"", "\"2 gigs\"", "memory = \"2 GiB\""),
            ("timeout = \"soon\"", "\"soon\"", "timeout = \"10 min\""),
            ("cache = \"no\"", "\"no\"", "\"read-only\""),
            ("keep_scratch = true", "true", "\"failed\""),
            ("ignore = [\"y\"]", "\"y\"", "there is no parameter `y`: there are x"),
            ("cores = 1, cores = 2", "cores", "is there twice"),
            ("cores", "cores", "write cores = 2"),
            ("version = 3", "3", "version = \"3\""),
        ] {
            let found = mistake(options, function);
            assert!(found.starts_with(&format!("{place} | ")), "{options}: {found}");
            assert!(found.contains(told), "{options}: {found}");
        }
        for (function, place, told) in [
            ("fn f<T>(x: T) {}", "T", "no parameters of type"),
            ("fn f(&self) {}", "&self", "no method"),
            ("fn f(x: &str) {}", "&str", "owns what it is given"),
            ("unsafe fn f() {}", "unsafe", "without `unsafe`"),
            ("struct S;", "struct", "before `fn`"),
            ("fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) {}", "g: u8", "at most 6"),
        ] {
            let found = mistake("", function);
            assert!(found.starts_with(&format!("{place} | ")), "{function}: {found}");
            assert!(found.contains(told), "{function}: {found}");
        }
    }
}
