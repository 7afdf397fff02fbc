//! A key with one limit, as the request path has it.

use std::sync::Arc;

use policy::{
    AllowList, BaseParts, Candidate, CounterId, CounterTable, Demand, Dialect, Enforcement, Grant,
    KeyHash, Limit, Model, ModelId, OnTight, Price, Provider, ProviderId, Scope, ScopeKind,
    Snapshot, Timestamp, TokenRatio, Verdict, VirtualKey, admit,
};

/// What requests are judged by.
pub(super) struct Limited {
    snapshot: Snapshot,
}

impl Limited {
    /// `amount` of the counter `text`, which is of the key `a`.
    pub(super) fn new(table: &CounterTable, text: &str, amount: u64, how: Enforcement) -> Self {
        let id: CounterId = text.parse().expect("a counter");
        let limit = Limit {
            counter: table.counter(&id),
            id,
            amount,
            enforcement: how,
            shadow: false,
            on_tight: OnTight::Refuse,
            overridden: None,
        };
        let provider = Provider {
            name: "openai".into(),
            dialect: Dialect::OpenAi,
            credentials: Vec::new(),
            max_retries: 0,
            region: None,
            scope: None,
        };
        let model = Model {
            name: "gpt".into(),
            provider: ProviderId(0),
            upstream_name: "gpt".into(),
            price: Price::FREE,
            max_output_tokens: None,
            estimate: Arc::new(TokenRatio::new()),
            scope: None,
        };
        let parts = BaseParts {
            providers: vec![provider],
            models: vec![model],
            ..BaseParts::default()
        };
        let key = VirtualKey {
            name: "a".into(),
            hash: KeyHash::of(b"a"),
            retiring: Vec::new(),
            team: None,
            customer: None,
            grants: vec![Grant {
                provider: "openai".into(),
                models: AllowList::all(),
                weight: 1,
                scope: None,
            }],
            scope: Some(Arc::new(Scope {
                kind: ScopeKind::VirtualKey,
                entity: "a".into(),
                limits: vec![limit],
            })),
            active: true,
            not_before: None,
            expires_at: None,
        };
        Self {
            snapshot: Snapshot::new(1, parts, [key]),
        }
    }

    /// How many of `asked` requests are admitted; all are served at once.
    pub(super) fn admitted(&self, asked: u64, now: Timestamp) -> u64 {
        let key = self.snapshot.key_named("a").expect("the only key");
        let one = Candidate {
            model: ModelId(0),
            demand: Demand::default(),
        };
        let admitted = (0..asked).filter(|_| {
            let verdict = admit(&self.snapshot, key, None, &[one], now);
            match verdict {
                Verdict::Admit(admitted) => {
                    let used = policy::Actual {
                        requests: 1,
                        ..policy::Actual::default()
                    };
                    drop(admitted.reservation.settle(&used, now));
                    true
                }
                _ => false,
            }
        });
        admitted.count() as u64
    }
}
