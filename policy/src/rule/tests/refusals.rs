use super::*;

/// A condition is refused with exactly this message.
#[track_caller]
fn refused(when: &str, message: &str) {
    let error = Rule::compile(spec(when)).expect_err(when);
    assert_eq!(error.to_string(), message, "{when}");
}

#[test]
fn names_that_are_not_known() {
    refused(
        "modle == 'a'",
        "unknown variable 'modle' at column 1, did you mean 'model'?",
    );
    refused(
        "model == 'budget' && budget > 1.0",
        "unknown variable 'budget' at column 22",
    );
    refused(
        "true || team == 'a'",
        "unknown variable 'team' at column 9, did you mean 'team_id'?",
    );
    refused(
        "'é' == tokens_user",
        "unknown variable 'tokens_user' at column 8, did you mean 'tokens_used'?",
    );
    refused(
        "complexity_tier == 'SIMPLE'",
        "'complexity_tier' cannot be used in a rule",
    );
    refused(
        "model.startswith('a')",
        "unknown function 'startswith' at column 7, did you mean 'startsWith'?",
    );
    refused("now() == 1", "unknown function 'now' at column 1");
    refused(
        "headers.exists(h, x == 'a')",
        "unknown variable 'x' at column 19",
    );
    refused("int == int", "unknown variable 'int' at column 1");
}

#[test]
fn types_that_do_not_fit() {
    refused("model == 1", "'==' does not take (string, int)");
    refused("budget_used > '80'", "'>' does not take (double, string)");
    refused("model", "the expression is string, not bool");
    refused("budget_used", "the expression is double, not bool");
    refused("headers", "the expression is map, not bool");
    refused("[true]", "the expression is list, not bool");
    refused("!model", "'!' does not take (string)");
    refused("-model == 'a'", "'-' does not take (string)");
    refused(
        "budget_used + 5 > 80",
        "'+' does not take (double, int); write whole numbers as 5.0, or use double()",
    );
    refused("5.0 % 2.0 == 1.0", "'%' does not take (double, double)");
    refused("model - 'a' == ''", "'-' does not take (string, string)");
    refused("headers[1] == 'a'", "'[]' does not take (map, int)");
    refused("model[0] == 'a'", "'[]' does not take (string, int)");
    refused("headers == params", "'==' does not take (map, map)");
    refused("[1] == [1]", "'==' does not take (list, list)");
    refused("1 in ['a']", "'in' does not take (int, list)");
    refused("'a' in model", "'in' does not take (string, string)");
    refused("['a', 1][0] == 'a'", "'[…]' does not take (string, int)");
    refused("true < false", "'<' does not take (bool, bool)");
    refused(
        "model.contains(1)",
        "'contains' does not take (string, int)",
    );
    refused(
        "contains(model, 'a')",
        "'contains' does not take (string, string)",
    );
    refused("model.size(1) == 1", "'size' does not take (string, int)");
    refused("size(1) == 1", "'size' does not take (int)");
    refused("int(true) == 1", "'int' does not take (bool)");
    refused("model.foo == 'a'", "'.foo' does not take (string)");
    refused("has(model.foo)", "'.foo' does not take (string)");
    refused("model.exists(x, true)", "'a loop' does not take (string)");
    refused(
        "headers.exists(x, x)",
        "'a loop's condition' does not take (string)",
    );
    // Parts that evaluation might never reach.
    refused("true || model", "'||' does not take (string)");
    refused("false && 1", "'&&' does not take (int)");
    refused("true ? true : 1", "'?:' does not take (bool, int)");
    refused("1 ? true : true", "'?:' does not take (int)");
    refused("false && model > 1", "'>' does not take (string, int)");
    refused(
        "false ? model == 1 : true",
        "'==' does not take (string, int)",
    );
}

#[test]
fn parts_that_rules_do_not_have() {
    refused("{'a': 1}['a'] == 1", "a map cannot be used in a rule");
    refused("a.b{} == 1", "a message cannot be used in a rule");
    refused("model == null", "null cannot be used in a rule");
    refused("b'a' == b'a'", "a bytes literal cannot be used in a rule");
    refused("1u == 1u", "an unsigned number cannot be used in a rule");
    refused(
        "model.matches(provider)",
        "a pattern that is not written out cannot be used in a rule",
    );
    refused(
        "headers.exists(model, true)",
        "the name of a variable for the items of a loop cannot be used in a rule",
    );
    refused(
        "headers['X-Region'] == 'a'",
        "header names are lower-case here: write 'x-region'",
    );
    refused(
        "'X-A' in headers",
        "header names are lower-case here: write 'x-a'",
    );
    refused(
        "has(headers.Accept)",
        "header names are lower-case here: write 'accept'",
    );
    refused(
        "model.matches('(')",
        "'(' is no regular expression: unclosed group",
    );
    refused(
        "model.matches('[a-z]{1000}{1000}')",
        "'[a-z]{1000}{1000}' is no regular expression: compiled regex exceeds size limit of 262144 bytes",
    );
}

#[test]
fn texts_that_cannot_be_parsed() {
    refused("", "the expression is empty");
    refused(" \n", "the expression is empty");
    refused(
        "model == 'a",
        "syntax error at column 10: the string does not end",
    );
    refused(
        "model == 'a\nb'",
        "syntax error at column 10: the string does not end",
    );
    refused(
        "model = 'a'",
        "syntax error at column 7: mismatched input '=' expecting end of text",
    );
    refused(
        "model == ",
        "syntax error at column 10: mismatched input 'end of text' expecting expression",
    );
    refused(
        "model ==\n(",
        "syntax error: mismatched input 'end of text' expecting expression",
    );
    refused(
        "has(model)",
        "syntax error at column 5: invalid argument to has() macro",
    );
    refused(
        "model.?a == 1",
        "syntax error at column 6: unsupported syntax '.?'",
    );
    refused(
        "// nothing",
        "syntax error at column 11: mismatched input 'end of text' expecting expression",
    );
}

#[test]
fn bounds_hold() {
    let fits = |when: &str| Rule::compile(spec(when)).is_ok();
    let long = |bytes: usize| format!("model == '{}'", "a".repeat(bytes - 11));
    assert!(fits(&long(4_096)));
    refused(
        &long(4_097),
        "the expression has 4097 bytes, more than 4096",
    );
    let list = format!("model in [{}'z']", "'a',".repeat(1_000));
    assert!(fits(&list));
    let many = |count| format!("true{}", " || model == 'a'".repeat(count));
    assert!(fits(&many(100)));
    refused(
        &many(101),
        "the expression has too many operators and brackets (at most 200)",
    );
    let nested = |depth| format!("{}1{} == '1'", "string(".repeat(depth), ")".repeat(depth));
    assert!(fits(&nested(24)));
    refused(
        &nested(25),
        "the expression has too many brackets within brackets (at most 24)",
    );
    let sum = |count| format!("1{} > 0", " + 1".repeat(count));
    assert!(fits(&sum(38)));
    refused(
        &sum(39),
        "the expression has too many operators within operators (at most 40)",
    );
    let joined = |count| format!("model{} == ''", " + model".repeat(count));
    assert!(fits(&joined(16)));
    refused(
        &joined(17),
        "the expression has too many joined strings (at most 16)",
    );
    refused(
        "headers.exists(a, headers.exists(b, a == b))",
        "the expression has too many loops within loops (at most 1)",
    );
}

/// Texts made to deepen the parser's tree behind the bounds on brackets.
#[test]
fn no_text_exhausts_the_stack() {
    let hide = |quote: &str, text: &str| format!("{quote}\n{text}");
    for chain in [
        "a.", "a[", "f(", ".f()", "!", "-", "a?", "1+", "a?a:", "{1:", "a{", "((", "[[",
    ] {
        let many = chain.repeat(4_000 / chain.len());
        for text in [
            many.clone(),
            format!("a{many}"),
            hide("'", &many),
            hide("'", &many) + "'",
            hide("// '", &many),
            hide("r'\\'", &many),
            hide("rb'\\'", &many),
            hide("'''", &many),
            hide("'\\\n'", &many),
        ] {
            let text: String = text.chars().take(4_000).collect();
            assert!(Rule::compile(spec(&text)).is_err(), "{text}");
        }
    }
}

#[test]
fn targets_have_a_form() {
    let message = |edit: fn(&mut RuleSpec)| {
        let mut spec = spec("true");
        edit(&mut spec);
        Rule::compile(spec).map_or_else(|error| error.to_string(), |_| String::new())
    };
    assert_eq!(message(|_| ()), "");
    assert_eq!(
        message(|spec| spec.targets.clear()),
        "a rule needs a target"
    );
    assert_eq!(
        message(|spec| spec.targets[0].credential = Some("main".into())),
        "a target with a credential needs its provider"
    );
    for fallback in ["gpt", "/gpt", "openai/", ""] {
        let mut spec = spec("true");
        spec.fallbacks = vec!["openai/org/gpt".into(), fallback.into()];
        let error = Rule::compile(spec).unwrap_err().to_string();
        assert_eq!(error, "a fallback is written provider/model");
    }
}
