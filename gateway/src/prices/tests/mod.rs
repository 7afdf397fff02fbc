//! Lists: what is taken of one, how a model finds its price, what is kept.

mod sync;

use policy::{Dialect, PerMillion, Price, Timestamp};

use super::list::{REDUCED_MAX, name_of};
use super::{ListError, Listed, PriceList, Wanted, kept};

/// As it is published, with what such lists have beside prices.
const PUBLISHED: &str = r#"{
  "sample_spec": {"litellm_provider": "one of https://docs", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0,
    "max_output_tokens": "max output tokens, if the provider specifies it"},
  "gpt-4o-mini": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07,
    "cache_read_input_token_cost": 7.5e-08, "max_input_tokens": 128000, "max_output_tokens": 16384,
    "search_context_cost_per_query": {"search_context_size_low": 0.03}},
  "claude-x": {"litellm_provider": "anthropic", "mode": "chat", "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05,
    "cache_read_input_token_cost": 3e-07, "cache_creation_input_token_cost": 3.75e-06,
    "cache_creation_input_token_cost_above_1hr": 6e-06, "output_cost_per_reasoning_token": 2e-05, "max_output_tokens": 64000},
  "text-embedding-3-small": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": "0.00000002"},
  "instruct": {"litellm_provider": "text-completion-openai", "mode": "completion", "input_cost_per_token": 1.5e-06, "output_cost_per_token": 2e-06},
  "azure/gpt-4o-mini": {"litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 1.65e-07, "output_cost_per_token": 6.6e-07},
  "groq/llama": {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 5e-08, "output_cost_per_token": 8e-08},
  "half": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-07},
  "odd": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-07, "output_cost_per_token": 1e-07, "cache_read_input_token_cost": -1},
  "whisper": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001},
  "gratis": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0.0},
  "nobodys": {"mode": "chat", "input_cost_per_token": 1e-07, "output_cost_per_token": 1e-07},
  "text": "no entry"
}"#;

const AT: Timestamp = Timestamp(1_790_000_000_000);

fn published() -> PriceList {
    let etag = Some("\"v1\"".to_owned());
    PriceList::published(PUBLISHED.as_bytes(), name_of("a"), etag, AT).expect("a list")
}

fn wanted<'a>(provider: &'a str, model: &'a str) -> Wanted<'a> {
    Wanted {
        catalogue_name: None,
        provider,
        dialect: Dialect::OpenAi,
        upstream_name: model,
    }
}

#[test]
fn entries_are_taken_whole_or_not_at_all() {
    let list = published();
    assert_eq!(list.len(), 6);
    let claude = Wanted {
        dialect: Dialect::Anthropic,
        ..wanted("claude", "claude-x")
    };
    let expected = Listed {
        vendor: "anthropic".into(),
        price: Price {
            input: PerMillion(3_000_000_000),
            cache_read: PerMillion(300_000_000),
            cache_write: PerMillion(3_750_000_000),
            cache_write_1h: PerMillion(6_000_000_000),
            output: PerMillion(15_000_000_000),
            reasoning: PerMillion(20_000_000_000),
        },
        max_output_tokens: Some(64_000),
    };
    assert_eq!(list.find(&claude), Some(&expected));
    // What an entry does not say costs as much as what it stands for.
    let mini = list
        .find(&wanted("openai", "gpt-4o-mini"))
        .expect("it is there");
    assert_eq!(mini.price.cache_write_1h, PerMillion(150_000_000));
    assert_eq!(mini.price.cache_read, PerMillion(75_000_000));
    assert_eq!(mini.price.reasoning, PerMillion(600_000_000));
    let embedding = list.find(&wanted("openai", "text-embedding-3-small"));
    let embedding = embedding.expect("input alone costs");
    assert_eq!(embedding.price.output, PerMillion(0));
    assert_eq!(embedding.price.input, PerMillion(20_000_000));
}

#[test]
fn a_model_finds_its_price_at_its_vendor() {
    let list = published();
    let output = |wanted: &Wanted<'_>| list.find(wanted).map(|listed| listed.price.output.0);
    for (provider, model, expected) in [
        ("openai", "gpt-4o-mini", Some(600_000_000)),
        // A provider of any name, by its protocol.
        ("our-openai", "gpt-4o-mini", Some(600_000_000)),
        ("openai", "instruct", Some(2_000_000_000)),
        // Another vendor of the list, by its name.
        ("azure", "gpt-4o-mini", Some(660_000_000)),
        ("groq", "llama", Some(80_000_000)),
        // It does not cost what somebody else asks for it.
        ("groq", "gpt-4o-mini", None),
        ("openai", "claude-x", None),
        ("openai", "llama", None),
        ("openai", "gratis", None),
        ("openai", "half", None),
        ("openai", "odd", None),
        ("openai", "whisper", None),
        ("openai", "", None),
    ] {
        let found = output(&wanted(provider, model));
        assert_eq!(found, expected, "{provider} {model}");
    }
    let named = Wanted {
        catalogue_name: Some("azure/gpt-4o-mini"),
        ..wanted("openai", "my-deployment")
    };
    assert_eq!(output(&named), Some(660_000_000));
    let unknown = Wanted {
        catalogue_name: Some("gpt-5"),
        ..wanted("openai", "gpt-4o-mini")
    };
    assert_eq!(output(&unknown), None, "the name that is given, or nothing");
}

#[test]
fn what_is_no_list_is_refused() {
    let read =
        |raw: &[u8]| PriceList::published(raw, name_of("a"), None, AT).map(|list| list.len());
    for raw in ["", "[]", "null", "{", "{\"a\": }", "<html>", "{} {}"] {
        let found = read(raw.as_bytes());
        assert!(
            matches!(found, Err(ListError::NotAList(_))),
            "{raw}: {found:?}"
        );
    }
    for raw in [
        "{}",
        r#"{"a": 1}"#,
        r#"{"a": {"litellm_provider": "openai"}}"#,
    ] {
        assert_eq!(read(raw.as_bytes()), Err(ListError::Empty), "{raw}");
    }
    assert_eq!(read(b"{\"a\xff\": {}}"), Err(ListError::NotUtf8));
    let entry =
        r#"{"litellm_provider":"openai","input_cost_per_token":1e-6,"output_cost_per_token":1e-6}"#;
    let many: Vec<String> = (0..60_000)
        .map(|number| format!("\"model-{number}\":{entry}"))
        .collect();
    let many = format!("{{{}}}", many.join(","));
    assert!(many.len() < super::list::RAW_MAX, "it could be fetched");
    assert_eq!(read(many.as_bytes()), Err(ListError::TooLarge));
}

#[test]
fn what_is_kept_comes_back() {
    let list = published();
    let bytes = list.to_bytes();
    let back = PriceList::from_bytes(&bytes).expect("it was written");
    assert_eq!(back, list);
    assert_eq!(back.fetched_at(), AT);
    assert_eq!(back.etag_of(&name_of("a")), Some("\"v1\""));
    assert_eq!(back.etag_of(&name_of("b")), None, "of another source");
    let text = String::from_utf8(bytes).expect("JSON");
    let other = text.replace("\"form\":1", "\"form\":2");
    assert_eq!(
        PriceList::from_bytes(other.as_bytes()),
        Err(ListError::OtherForm(2))
    );
    let large = vec![b' '; REDUCED_MAX + 1];
    assert_eq!(PriceList::from_bytes(&large), Err(ListError::TooLarge));
    // A price that stands for an unknown one is none.
    let dear = format!("[{0},{0},{0},{0},{0},{0}]", u64::MAX);
    let only = format!(
        r#"{{"form":1,"source":"{}","fetched_at":1,"models":{{"a":{{"vendor":"openai","price":{dear}}}}}}}"#,
        "0".repeat(64)
    );
    assert_eq!(
        PriceList::from_bytes(only.as_bytes()),
        Err(ListError::Empty)
    );
}

#[test]
fn the_last_good_list_is_kept_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(kept::last_good(folder.path()), None, "there was none");
    let list = published();
    kept::keep(folder.path(), &list.to_bytes()).expect("it is kept");
    assert_eq!(kept::last_good(folder.path()), Some(list));
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["prices.json"], "nothing is left beside it");
    std::fs::write(folder.path().join("prices.json"), "{").expect("a file");
    assert_eq!(kept::last_good(folder.path()), None, "it is broken");
}
