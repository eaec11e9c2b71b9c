//! Tests of the options' declarations and of their layers.

use super::*;
use crate::config::file::Document;
use crate::config::foreign::Content;
use std::path::Path;

options! {
    /// An option of each type.
    #[derive(Debug, PartialEq)]
    struct TestOptions {
        /// a number
        number: u16 = "7" => ("number", "uint"),
        /// a switch, whose help
        /// has two lines
        a_switch: bool => ("aSwitch", "bool"),
        /// a number that may be turned off
        may_be_off: Value<u16> = "8" => ("mayBeOff", "uint"),
        /// a number that may be missing
        may_be_missing: Option<u16> => ("mayBeMissing", "uint"),
        /// a number, and whether it was given
        told: Given<u16> = "9" => ("told", "uint"),
        /// numbers
        list: Vec<u16> = "1, 2 and 3" => ("list", "value"),
        /// texts that may be empty
        texts: Vec<Value<String>> => ("texts", "value"),
    }
}

fn read(given: &[(&str, &str)], text: &str) -> Result<TestOptions, String> {
    let flag = |(camel, value): &(&str, &str)| Flag {
        name: TestOptions::NAMES
            .iter()
            .find(|name| name.camel == *camel)
            .unwrap(),
        value: (*value).to_owned(),
    };
    let flags: Vec<Flag> = given.iter().map(flag).collect();
    let path = Path::new("gt.yaml");
    let document = Document::parse(path, text.to_owned(), Content::Configuration).unwrap();
    let file = [
        document.section("options", &[]).unwrap(),
        document.section("other", &[("number", "n")]).unwrap(),
    ];
    let layers = Layers {
        flags: &flags,
        file: &file,
    };
    layers.read().map_err(|error| error.to_string())
}

fn defaults() -> TestOptions {
    TestOptions {
        number: 7,
        a_switch: false,
        may_be_off: Value(Some(8)),
        may_be_missing: None,
        told: Given {
            value: 9,
            given: false,
        },
        list: vec![1, 2, 3],
        texts: Vec::new(),
    }
}

#[test]
fn an_option_that_is_not_given_has_its_default() {
    for text in ["", "options:", "options: {number: , list: ~, told: ''}"] {
        assert_eq!(read(&[], text), Ok(defaults()), "{text}");
    }
    let empty = [("number", ""), ("aSwitch", ""), ("list", ""), ("told", "")];
    assert_eq!(read(&empty, ""), Ok(defaults()));
}

#[test]
fn an_empty_text_turns_an_option_off_where_that_is_possible() {
    for (flags, text) in [
        (
            &[("mayBeOff", ""), ("mayBeMissing", ""), ("texts", "")][..],
            "",
        ),
        (&[], "options: {mayBeOff: '', mayBeMissing: '', texts: ''}"),
    ] {
        let off = TestOptions {
            may_be_off: Value(None),
            texts: vec![Value(None)],
            ..defaults()
        };
        assert_eq!(read(flags, text), Ok(off));
    }
}

#[test]
fn a_flag_stands_over_the_file_and_the_file_over_the_default() {
    let text = "options: {number: 10, told: 11, list: [3, '', 4], texts: [a, '']}\nother: {n: 5}";
    let of_file = TestOptions {
        number: 10,
        told: Given {
            value: 11,
            given: true,
        },
        list: vec![3, 4],
        texts: vec![Value(Some("a".to_owned())), Value(None)],
        ..defaults()
    };
    assert_eq!(read(&[], text).as_ref(), Ok(&of_file));
    let flags = [
        ("number", "x"),
        ("number", "12"),
        ("list", "5"),
        ("list", "6"),
    ];
    let of_flags = TestOptions {
        number: 12,
        list: vec![5, 6],
        ..of_file
    };
    assert_eq!(read(&flags, text), Ok(of_flags));
    assert_eq!(read(&[], "other: {n: 5}").unwrap().number, 5);
}

#[test]
fn a_wrong_value_in_the_file_is_an_error_under_a_flag_too() {
    let error = read(&[("number", "1")], "options: {number: x}").unwrap_err();
    assert!(
        error.starts_with("gt.yaml: line 1: options.number: "),
        "{error}"
    );
}

#[test]
fn a_wrong_text_is_named_with_its_flag_or_its_line_and_key() {
    let why = "\"x\" is not a whole number from 0 to 65535.";
    for (flags, text, place) in [
        (&[("number", "x")][..], "", "-number"),
        (&[("list", "1"), ("list", "x")], "", "-list"),
        (
            &[],
            "\noptions: {mayBeOff: x}",
            "gt.yaml: line 2: options.mayBeOff",
        ),
        (
            &[],
            "options:\n  list:\n  - 1\n  - x",
            "gt.yaml: line 4: options.list[1]",
        ),
        (&[], "options:\n  list: x", "gt.yaml: line 2: options.list"),
        (&[], "other: {n: x}", "gt.yaml: line 1: other.n"),
    ] {
        assert_eq!(read(flags, text), Err(format!("{place}: {why}")));
    }
    for (text, why) in [
        (
            "options: {number: [1]}",
            "options.number: this is a list, but must be a single value.",
        ),
        (
            "options: {list: {a: 1}}",
            "options.list: this is a section of keys, but must be a single value.",
        ),
        (
            "options: {list: [~]}",
            "options.list[0]: this is nothing, but must be a single value.",
        ),
    ] {
        assert_eq!(read(&[], text), Err(format!("gt.yaml: line 1: {why}")));
    }
}

/// Checks what the compiler does not of the options of `T`.
fn check<T: Options>() {
    assert!(
        Layers::default().read::<T>().is_ok(),
        "every default can be read"
    );
    for name in T::NAMES {
        let plain = name.field.replace('_', "");
        assert_eq!(name.camel.to_ascii_lowercase(), plain);
        assert!(
            !name.help().is_empty() && !name.help().contains("  "),
            "{name:?}"
        );
    }
}

#[test]
fn every_option_has_one_name_a_help_text_and_a_default_that_can_be_read() {
    check::<crate::config::options::CommonOptions>();
    #[cfg(feature = "server")]
    {
        check::<crate::config::server::ServerOptions>();
        check::<crate::config::server::PairedOptions>();
    }
    #[cfg(feature = "client")]
    {
        check::<crate::config::client::ClientOptions>();
        check::<crate::config::client::ServiceOptions>();
    }
}
