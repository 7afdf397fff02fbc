//! Whom a request is taken to be from.

mod signing;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::Algorithm;
use policy::Timestamp;
use serde_json::{Value, json};

use super::*;
use signing::Signer;

/// A set with one Ed25519 key (RFC 8037, appendix A.2).
pub(super) const ED_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const NOW_S: u64 = NOW.0 / 1_000;

fn claims() -> Value {
    json!({"iss": "https://issuer", "aud": ["other", "tyr"], "sub": "ann", "exp": NOW_S + 300})
}

/// A rule whose keys are the set of all `signers`.
fn rule(signers: &[&Signer]) -> TokenRule {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    let set = json!({"keys": keys}).to_string();
    TokenRule {
        header: HeaderName::from_static("x-user-token"),
        issuer: Some("https://issuer".to_owned()),
        audience: vec!["tyr".to_owned()],
        claim: "sub".to_owned(),
        keys: Arc::new(Jwks::of_text(&set).expect("a set")),
    }
}

fn users(token: TokenRule, required: bool) -> UserRule {
    let net = "10.0.0.0/8".parse().unwrap();
    let header = HeaderName::from_static(DEFAULT_HEADER);
    UserRule::new(header, vec![net], Some(token), required)
}

fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn peer(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn every_public_key_algorithm_is_verified() {
    let signers = Signer::all();
    let rule = rule(&signers.iter().collect::<Vec<_>>());
    crypto::install();
    for signer in &signers {
        let token = signer.token(&claims());
        let user = rule.user(token.as_bytes(), NOW);
        assert_eq!(user.as_deref(), Ok("ann"), "{:?}", signer.algorithm);
        let (head, signature) = token.rsplit_once('.').unwrap();
        let other = signer.token(&json!({"sub": "bob", "exp": NOW_S + 300}));
        let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
        assert_eq!(
            rule.user(swapped.as_bytes(), NOW),
            Err(TokenProblem::BadSignature)
        );
        let none = format!("{head}.");
        assert_eq!(
            rule.user(none.as_bytes(), NOW),
            Err(TokenProblem::BadSignature)
        );
    }
}

#[test]
fn a_token_cannot_choose_how_it_is_read() {
    let signer = Signer::of(Algorithm::EdDSA);
    let rule = rule(&[&signer]);
    crypto::install();
    for (header, problem) in [
        (json!({"alg": "none"}), TokenProblem::Malformed),
        (
            json!({"alg": "HS256", "kid": "EdDSA"}),
            TokenProblem::UnknownKey,
        ),
        (
            json!({"alg": "RS256", "kid": "EdDSA"}),
            TokenProblem::UnknownKey,
        ),
        (
            json!({"alg": "EdDSA", "kid": "other"}),
            TokenProblem::UnknownKey,
        ),
        (
            json!({"alg": "EdDSA", "kid": "EdDSA", "crit": ["b64"], "b64": false}),
            TokenProblem::Malformed,
        ),
    ] {
        let token = signer.token_with(&header, &claims());
        assert_eq!(rule.user(token.as_bytes(), NOW), Err(problem), "{header}");
    }
    let keyless = signer.token_with(&json!({"alg": "EdDSA"}), &claims());
    assert_eq!(rule.user(keyless.as_bytes(), NOW).as_deref(), Ok("ann"));
    for text in ["", "a", "a.b", "a.b.c", "....", "\u{0}.\u{0}.\u{0}"] {
        let problem = rule.user(text.as_bytes(), NOW);
        assert_eq!(problem, Err(TokenProblem::Malformed), "{text:?}");
    }
    let long = "a".repeat(20_000);
    assert_eq!(
        rule.user(long.as_bytes(), NOW),
        Err(TokenProblem::Malformed)
    );
}

#[test]
fn claims_decide() {
    let signer = Signer::of(Algorithm::ES256);
    let rule = rule(&[&signer]);
    crypto::install();
    let check = |change: &dyn Fn(&mut Value), expected: Result<&str, TokenProblem>| {
        let mut claims = claims();
        change(&mut claims);
        let user = rule.user(signer.token(&claims).as_bytes(), NOW);
        assert_eq!(
            user.as_deref().map_err(|problem| *problem),
            expected,
            "{claims}"
        );
    };
    use TokenProblem::{Expired, NotYetValid, WrongAudience, WrongIssuer};
    check(&|c| c["exp"] = json!(NOW_S - 59), Ok("ann"));
    check(&|c| c["exp"] = json!(NOW_S - 60), Err(Expired));
    check(&|c| c["exp"] = json!("soon"), Err(Expired));
    check(&|c| c["exp"] = Value::Null, Err(Expired));
    check(&|c| c["nbf"] = json!(NOW_S + 60), Ok("ann"));
    check(&|c| c["nbf"] = json!(NOW_S + 61), Err(NotYetValid));
    check(&|c| c["nbf"] = json!("later"), Err(NotYetValid));
    check(&|c| c["iss"] = json!("https://other"), Err(WrongIssuer));
    check(&|c| c["iss"] = Value::Null, Err(WrongIssuer));
    check(&|c| c["aud"] = json!("tyr"), Ok("ann"));
    check(&|c| c["aud"] = json!("tyrant"), Err(WrongAudience));
    check(&|c| c["aud"] = json!([]), Err(WrongAudience));
    check(&|c| c["aud"] = Value::Null, Err(WrongAudience));
    let no_name = |problem| Err(TokenProblem::NoName(problem));
    check(&|c| c["sub"] = json!(7), no_name(NameProblem::NoText));
    check(&|c| c["sub"] = json!(" "), no_name(NameProblem::Empty));
    check(
        &|c| c["sub"] = json!("a\nb"),
        no_name(NameProblem::Unprintable),
    );
    check(
        &|c| c["sub"] = json!("é".repeat(129)),
        no_name(NameProblem::TooLong),
    );
    let longest = "é".repeat(128);
    check(&|c| c["sub"] = json!(longest), Ok(&longest));
}

#[test]
fn a_header_is_believed_from_trusted_addresses_only() {
    let rule = users(rule(&[&Signer::of(Algorithm::EdDSA)]), false);
    let headers = map(&[("x-tyr-user", "ann")]);
    let of = |headers: &HeaderMap, from: Option<IpAddr>| rule.identify(headers, from, false, NOW);
    for from in ["10.1.2.3", "::ffff:10.1.2.3"] {
        assert_eq!(of(&headers, peer(from)), Ok(Some("ann".into())), "{from}");
    }
    for from in ["11.1.2.3", "::1", "127.0.0.1"] {
        assert_eq!(of(&headers, peer(from)), Ok(None), "{from}");
    }
    assert_eq!(of(&headers, None), Ok(None));
    let trusted = peer("10.0.0.1");
    let two = map(&[("x-tyr-user", "ann"), ("x-tyr-user", "bob")]);
    assert_eq!(of(&two, trusted), Err(UserProblem::Ambiguous));
    let long = "a".repeat(129);
    let long = map(&[("x-tyr-user", &long)]);
    let too_long = UserProblem::BadHeader(NameProblem::TooLong);
    assert_eq!(of(&long, trusted), Err(too_long));
    assert_eq!(of(&map(&[("x-tyr-user", " ")]), trusted), Ok(None));
    for name in ["x-tyr-user", "x-user-token"] {
        assert!(rule.is_private(&HeaderName::from_static(name)), "{name}");
    }
    assert!(!rule.is_private(&HeaderName::from_static("x-other")));
}

#[test]
fn a_token_wins_and_a_wrong_one_is_never_nobody() {
    let signer = Signer::of(Algorithm::EdDSA);
    let rule_of = |required| users(rule(&[&signer]), required);
    let trusted = peer("10.0.0.1");
    let token = signer.token(&claims());
    let both = map(&[("x-tyr-user", "bob"), ("x-user-token", &token)]);
    let user = rule_of(false).identify(&both, trusted, false, NOW);
    assert_eq!(user, Ok(Some("ann".into())));
    let wrong = map(&[("x-tyr-user", "bob"), ("x-user-token", "a.b.c")]);
    let user = rule_of(false).identify(&wrong, trusted, false, NOW);
    assert_eq!(user, Err(UserProblem::Token(TokenProblem::Malformed)));
    let nobody = HeaderMap::new();
    assert_eq!(
        rule_of(false).identify(&nobody, trusted, false, NOW),
        Ok(None)
    );
    let missing = rule_of(true).identify(&nobody, trusted, false, NOW);
    assert_eq!(missing, Err(UserProblem::Missing));
}

#[test]
fn authorization_is_a_token_only_beside_a_key_of_its_own() {
    let signer = Signer::of(Algorithm::EdDSA);
    let mut token_rule = rule(&[&signer]);
    token_rule.header = header::AUTHORIZATION;
    let rule = users(token_rule, false);
    let bearer = format!("bearer  {}", signer.token(&claims()));
    let headers = map(&[("authorization", &bearer)]);
    let of = |headers: &HeaderMap, own_key| rule.identify(headers, None, own_key, NOW);
    assert_eq!(of(&headers, true), Ok(Some("ann".into())));
    assert_eq!(of(&headers, false), Ok(None));
    let basic = map(&[("authorization", "Basic dTpw")]);
    assert_eq!(of(&basic, true), Ok(None));
}

#[test]
fn sets_are_read_key_by_key() {
    let set = |keys: Value| KeySet::parse(json!({"keys": keys}).to_string().as_bytes());
    let ed = Signer::of(Algorithm::EdDSA).jwk();
    let oct = json!({"kty": "oct", "kid": "s", "k": "AAAA"});
    let odd = json!({"kty": "PQ", "kid": 7});
    assert!(set(json!([oct, odd, 5, ed])).unwrap().knows("EdDSA"));
    assert_eq!(set(json!([oct, odd])).err(), Some(KeySetError::NoKey));
    let mut sealing = ed.clone();
    sealing["use"] = json!("enc");
    assert_eq!(set(json!([sealing])).err(), Some(KeySetError::NoKey));
    let many = vec![ed; 300];
    assert_eq!(set(json!(many)).err(), Some(KeySetError::TooMany));
    for text in ["", "[]", "{}", r#"{"keys":1}"#] {
        let problem = KeySet::parse(text.as_bytes()).err();
        assert_eq!(problem, Some(KeySetError::Malformed), "{text}");
    }
}

#[test]
fn before_the_first_set_came_every_token_waits() {
    let signer = Signer::of(Algorithm::EdDSA);
    let mut rule = rule(&[&signer]);
    crypto::install();
    let address = http::Uri::from_static("https://issuer.example/keys");
    let clients = crate::upstream::ClientPool::new();
    rule.keys = Arc::new(Jwks::of_address(&address, false, &clients).unwrap());
    let token = signer.token(&claims());
    assert_eq!(
        rule.user(token.as_bytes(), NOW),
        Err(TokenProblem::KeysNotLoaded)
    );
}

#[test]
fn what_a_user_left_goes_with_the_user() {
    use policy::{BaseParts, Enforcement, LimitTemplate, OnTight, Unit, UserLimits, WindowKind};
    let counters = Arc::new(CounterTable::new());
    let each = LimitTemplate {
        unit: Unit::Concurrent,
        period: None,
        window: WindowKind::Fixed,
        name: None,
        amount: 1,
        enforcement: Enforcement::Eventual,
        shadow: false,
        on_tight: OnTight::Refuse,
    };
    let limits = UserLimits::new(vec![each], Arc::clone(&counters), 2_000);
    let parts = BaseParts {
        users: Some(limits),
        ..BaseParts::default()
    };
    let policy = Snapshot::new(1, parts, []);
    let users = policy.users().expect("limits");
    for number in 0..1_000 {
        drop(users.scope(&format!("u{number}"), NOW));
    }
    let later = NOW.plus(Duration::from_secs(60));
    forget(&policy, &counters, later);
    // What the map has taken out it drops by and by.
    drop(users.scope("late", later));
    forget(&policy, &counters, later);
    let left = counters.counters().len();
    assert!(left < 500, "{left} counters of 1,000 users that are gone");
}
