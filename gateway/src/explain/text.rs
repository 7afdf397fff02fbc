//! An explanation for people.

use std::fmt::Write;

use crate::admin::explain::{ChoiceShown, Explanation, JudgedLimit};

/// The whole explanation, a line per fact, with a newline at the end.
pub(super) fn of(explanation: &Explanation) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut text, explanation);
    text
}

fn write(text: &mut String, explanation: &Explanation) -> std::fmt::Result {
    let key = &explanation.key;
    writeln!(
        text,
        "{} for '{}' at {}",
        match explanation.verdict.as_str() {
            "admit" => "ADMITTED",
            _ => "REFUSED",
        },
        explanation.model,
        explanation.endpoint
    )?;
    write!(text, "key      '{}' is {}", key.name, key.state)?;
    if let Some(says) = &key.says {
        write!(text, " ({says})")?;
    }
    for (word, name) in [("team", &key.team), ("customer", &key.customer)] {
        if let Some(name) = name {
            write!(text, ", {word} '{name}'")?;
        }
    }
    writeln!(text)?;
    if let Some(user) = &explanation.user {
        writeln!(text, "user     '{user}'")?;
    }
    rules(text, explanation)?;
    if let Some(region) = &explanation.region {
        writeln!(
            text,
            "region   '{region}' is this node's: first what is there, then what is in none"
        )?;
    }
    if let Some(chosen) = &explanation.chosen {
        writeln!(text, "goes to  {chosen}")?;
    }
    if let Some(clamped_to) = explanation.clamped_to {
        writeln!(text, "clamped  to an answer of {clamped_to} tokens")?;
    }
    for choice in &explanation.choices {
        of_choice(text, choice)?;
    }
    for skipped in &explanation.skipped {
        writeln!(text, "skipped  {}: {}", skipped.model, skipped.why)?;
    }
    if !explanation.limits.is_empty() {
        writeln!(text, "limits wherever it goes")?;
    }
    of_limits(text, &explanation.limits)?;
    if let Some(refusal) = &explanation.refusal {
        writeln!(text, "the caller is told {}", refusal.status)?;
        for (name, value) in &refusal.headers {
            writeln!(text, "  {name}: {value}")?;
        }
        writeln!(text, "  {}", refusal.body)?;
    }
    Ok(())
}

fn rules(text: &mut String, explanation: &Explanation) -> std::fmt::Result {
    for rule in &explanation.rules {
        let outcome = rule.outcome.replace('_', " ");
        write!(text, "rule     '{}' {outcome}", rule.rule)?;
        match &rule.says {
            Some(says) => writeln!(text, ": {says}")?,
            None => writeln!(text)?,
        }
    }
    match &explanation.decided_by {
        Some(rule) => writeln!(text, "decided  by rule '{rule}'"),
        None => writeln!(text, "decided  by no rule: the model's own order"),
    }
}

fn of_choice(text: &mut String, choice: &ChoiceShown) -> std::fmt::Result {
    let demand = &choice.demand;
    write!(text, "choice   {}", choice.model)?;
    if let Some(credential) = &choice.credential {
        write!(text, " with credential '{credential}'")?;
    }
    if let Some(region) = &choice.region {
        write!(text, " in region '{region}' ({})", choice.nearness)?;
    }
    writeln!(
        text,
        ": likely {} tokens, ${}; at most {} tokens, ${}{}",
        demand.tokens,
        demand.cost_usd,
        demand.strict_tokens,
        demand.strict_cost_usd,
        if choice.fits { "" } else { " - no room" },
    )?;
    of_limits(text, &choice.limits)
}

fn of_limits(text: &mut String, limits: &[JudgedLimit]) -> std::fmt::Result {
    for judged in limits {
        let mark = match (judged.fits, judged.standing.is_shadow()) {
            (true, _) => "ok  ",
            (false, true) => "(no)",
            (false, false) => "NO  ",
        };
        let asked = &judged.asked;
        writeln!(text, "  {mark} {}, asks {asked}", judged.standing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_decision_can_be_read() {
        let explanation: Explanation = serde_json::from_value(serde_json::json!({
            "verdict": "refuse",
            "key": {"name": "demo", "state": "active", "says": null, "team": "search", "customer": "acme"},
            "user": "anna",
            "endpoint": "chat_completions",
            "model": "fast",
            "rules": [{"rule": "spare", "outcome": "matched", "says": null}],
            "decided_by": "spare",
            "choices": [{
                "model": "openai/gpt-4o-mini",
                "credential": null,
                "demand": {"tokens": 30, "cost_usd": "0.1", "strict_tokens": 40, "strict_cost_usd": "0.2"},
                "limits": [],
                "fits": true,
            }],
            "skipped": [{"model": "anthropic/claude", "why": "speaks another protocol"}],
            "chosen": null, "clamped_to": null,
            "limits": [{
                "standing": {
                    "id": "virtual_key/demo/usd/1d/calendar",
                    "scope": "virtual_key", "name": "demo", "unit": "usd", "every": "1d",
                    "window": "calendar", "limit_name": null, "limit": "10", "used": "9.95",
                    "reserved": "0", "remaining": "0.05", "resets_at": "2026-11-23T00:00:00Z",
                    "enforcement": "strict", "mode": "single", "overshoot_bound": "0",
                    "answers_may_exceed_hold": false, "overridden": false, "shadow": false,
                },
                "asked": "0.2",
                "fits": false,
            }],
            "refusal": {"status": 429, "headers": {"retry-after": "60"}, "body": {"error": {}}},
        }))
        .expect("an explanation");
        let expected = "\
REFUSED for 'fast' at chat_completions
key      'demo' is active, team 'search', customer 'acme'
user     'anna'
rule     'spare' matched
decided  by rule 'spare'
choice   openai/gpt-4o-mini: likely 30 tokens, $0.1; at most 40 tokens, $0.2
skipped  anthropic/claude: speaks another protocol
limits wherever it goes
  NO   virtual_key/demo/usd/1d/calendar: $0.05 of $10 left until 2026-11-23T00:00:00Z, asks $0.2
the caller is told 429
  retry-after: 60
  {\"error\":{}}
";
        assert_eq!(of(&explanation), expected);
    }
}
