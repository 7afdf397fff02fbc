//! Tests of `auth`.

use super::*;

#[track_caller]
fn check(headers: &[(&'static str, &'static str)], expected: Result<&str, &str>) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    match (credential(&map), expected) {
        (Ok(got), Ok(want)) => assert_eq!(got, want.as_bytes(), "{headers:?}"),
        (Err(got), Err(want)) => assert!(got.message.contains(want), "{headers:?}: {got:?}"),
        (got, want) => panic!("{headers:?}: {got:?}, expected {want:?}"),
    }
}

#[test]
fn one_key_in_any_header() {
    check(&[("authorization", "Bearer k1")], Ok("k1"));
    check(&[("authorization", "bearer  k1 ")], Ok("k1"));
    check(&[("x-api-key", "k1")], Ok("k1"));
    check(&[("api-key", "k1")], Ok("k1"));
    check(&[("x-goog-api-key", "k1")], Ok("k1"));
    check(&[("x-tyr-key", "k1")], Ok("k1"));
}

#[test]
fn several_headers() {
    check(
        &[("authorization", "Bearer k1"), ("x-api-key", "k1")],
        Ok("k1"),
    );
    check(
        &[("authorization", "Bearer k1"), ("x-api-key", "k2")],
        Err("two different"),
    );
    check(
        &[("x-api-key", "k1"), ("x-api-key", "k2")],
        Err("two different"),
    );
    check(
        &[("x-tyr-key", "k1"), ("x-tyr-key", "k2")],
        Err("two different"),
    );
    check(
        &[("x-tyr-key", "k1"), ("authorization", "Bearer other")],
        Ok("k1"),
    );
}

#[track_caller]
fn check_refusal(refusal: &Refusal, reason: Reason, says: &str) {
    assert_eq!(refusal.reason, reason, "{refusal:?}");
    assert!(refusal.message.contains(says), "{refusal:?}");
}

#[test]
fn each_state_of_a_key_has_an_answer() {
    let at = Timestamp(1_800_000_000_000);
    let gone = Reason::Unauthenticated;
    for (refusal, reason, says) in [
        (KeyRefusal::Unknown, gone, "not known"),
        (KeyRefusal::Revoked, gone, "revoked"),
        (
            KeyRefusal::Expired { at },
            gone,
            "expired at 2027-01-15T08:00:00",
        ),
        (KeyRefusal::Inactive, Reason::Forbidden, "not active"),
        (
            KeyRefusal::NotYetValid { from: at },
            Reason::Forbidden,
            "not valid before 2027-01-15T08:00:00",
        ),
    ] {
        check_refusal(&of_key(refusal, None), reason, says);
    }
    let unresolved = of_key(KeyRefusal::Inactive, Some("no team 'x'"));
    check_refusal(&unresolved, Reason::UnresolvedReference, "no team 'x'");
    let revoked = of_key(KeyRefusal::Revoked, Some("no team 'x'"));
    check_refusal(&revoked, gone, "revoked");
}

#[test]
fn a_wrong_user_is_told_apart_from_keys_that_are_not_there_yet() {
    let token = |problem| of_user(UserProblem::Token(problem));
    let early = token(TokenProblem::KeysNotLoaded);
    check_refusal(&early, Reason::NotReady, "not loaded yet");
    assert_eq!(early.retry_after, Some(KEYS_RETRY));
    check_refusal(&token(TokenProblem::Expired), Reason::NoUser, "expired");
    check_refusal(&of_user(UserProblem::Missing), Reason::NoUser, "no user");
    let two = of_user(UserProblem::Ambiguous);
    check_refusal(&two, Reason::InvalidRequest, "two different users");
}

#[test]
fn empty_and_foreign_schemes_count_as_absent() {
    check(&[], Err("no virtual key"));
    check(&[("authorization", "")], Err("no virtual key"));
    check(&[("authorization", "Basic dTpw")], Err("no virtual key"));
    check(
        &[("authorization", "Bearer "), ("x-api-key", "k1")],
        Ok("k1"),
    );
    check(
        &[("authorization", "Basic dTpw"), ("api-key", "k1")],
        Ok("k1"),
    );
    check(&[("x-tyr-key", ""), ("api-key", "k1")], Ok("k1"));
}
