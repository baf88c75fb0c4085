//! Properties on random streams: nothing is lost, a stream makes what the batch makes, joining is associative.

use super::*;
use crate::ErrorKind;
use crate::random::Rng;
use crate::schema::Merge;

/// Events with two surfaces, a categorical outcome and a completion in buckets.
fn schema() -> Schema {
    let field = |name: &str, kind, timing| EventField { field: Field { name: name.into(), kind }, timing };
    let categories = || FieldKind::Categorical(vec!["a".into(), "b".into()]);
    Schema {
        name: "shop".into(),
        has_time: true,
        actions: ["view", "like", "buy"].map(String::from).to_vec(),
        value: Some(FieldKind::Numeric(vec![1.0, 2.0])),
        event_fields: vec![
            field("surface", categories(), Timing::Request),
            field("reason", categories(), Timing::PostAction),
            field("completion", FieldKind::Numeric(vec![0.2, 0.5, 0.9]), Timing::PostAction),
        ],
        ..Schema::default()
    }
}

fn options(budget: u32) -> TokenizerOptions {
    TokenizerOptions {
        max_gap: 10,
        surface: "surface".into(),
        terminal: vec!["buy".into()],
        merges: 8,
        budget,
        dropout: 0.0,
    }
}

/// view view, view view like, view buy, buy view.
fn vocabulary(budget: u32) -> TokenVocabulary {
    let merge = |left, right| Merge { left, right, count: 10 };
    TokenVocabulary {
        version: VERSION,
        options: options(budget),
        merges: vec![merge(0, 0), merge(3, 1), merge(0, 2), merge(2, 0)],
        value: vec![1.0, 2.0, 4.0],
        count: vec![1.0, 2.0],
        span: vec![0.0, 5.0],
    }
}

/// The next event of a random stream over two items: often it goes on with the run.
fn event(rng: &mut Rng, now: &mut i64) -> CodedEvent {
    *now += [0, 0, 1000, 4000, 10_000, 11_000][rng.below(6)];
    CodedEvent {
        item: u32::from(rng.below(6) == 0),
        time: Some(*now),
        action: [0, 0, 0, 1, 2, History::NO_ACTION][rng.below(6)],
        value: if rng.below(3) == 0 { f32::NAN } else { rng.below(100) as f32 / 4.0 },
        fields: vec![u32::from(rng.below(9) == 0), rng.below(3) as u32, rng.below(5) as u32],
    }
}

fn history(events: &[CodedEvent]) -> History {
    History {
        items: events.iter().map(|e| e.item).collect(),
        time: events.iter().filter_map(|e| e.time).collect(),
        first: Vec::new(),
        action: events.iter().map(|e| e.action).collect(),
        value: events.iter().map(|e| e.value).collect(),
        fields: (0..3).map(|at| events.iter().map(|e| e.fields[at]).collect()).collect(),
    }
}

fn batch(tokenizer: &Tokenizer, events: &[CodedEvent]) -> History {
    let mut merged = History::default();
    tokenizer.merge(&history(events), 0..events.len(), &mut merged);
    merged
}

fn appended(tokenizer: &Tokenizer, tokens: &[Token]) -> History {
    let columns = tokenizer.schema().event_fields.len();
    let mut merged = History { fields: vec![Vec::new(); columns], ..History::default() };
    tokens.iter().for_each(|t| tokenizer.append(t, &mut merged));
    merged
}

/// Equal to the bit, missing values too.
fn same(a: &History, b: &History) -> bool {
    let bits = |h: &History| h.value.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let rest = |h: &History| History { value: Vec::new(), ..h.clone() };
    bits(a) == bits(b) && rest(a) == rest(b)
}

/// A token that can be compared: a missing value is NaN, which is not equal to itself.
fn bits(token: &Token) -> (u64, Token) {
    (token.value.to_bits(), Token { value: 0.0, ..token.clone() })
}

/// The tokens of events, one by one.
fn streamed(tokenizer: &Tokenizer, events: &[CodedEvent]) -> Vec<Token> {
    let mut stream = Stream::new(tokenizer);
    let mut tokens = Vec::new();
    for e in events {
        if let Pushed::Opened(Some(t)) = stream.push(e.clone()) {
            tokens.push(t);
        }
    }
    tokens.extend(stream.close());
    tokens
}

fn tokenizers() -> Vec<Tokenizer> {
    [1, 2, 0].map(|budget| Tokenizer::new(&schema(), vocabulary(budget)).unwrap()).to_vec()
}

#[test]
fn nothing_is_lost_and_a_stream_makes_what_the_batch_makes_on_a_hundred_thousand_streams() {
    let tokenizers = tokenizers();
    let (mut merged, mut whole) = (0, 0);
    for stream in 0..100_000u64 {
        let mut rng = Rng::for_stream(11, stream);
        let mut now = 0;
        let events: Vec<CodedEvent> = (0..1 + rng.below(14)).map(|_| event(&mut rng, &mut now)).collect();
        let tokenizer = &tokenizers[stream as usize % tokenizers.len()];
        let tokens = streamed(tokenizer, &events);
        assert!(same(&batch(tokenizer, &events), &appended(tokenizer, &tokens)), "stream {stream}: {events:?}");
        // Every token against the events that it took, in their order.
        let mut rest = events.as_slice();
        for token in &tokens {
            let (own, after) = rest.split_at(token.count as usize);
            rest = after;
            let known: Vec<f64> = own.iter().map(|e| f64::from(e.value)).filter(|v| !v.is_nan()).collect();
            let sum: f64 = known.iter().sum();
            assert!(if known.is_empty() { token.value.is_nan() } else { token.value == sum });
            assert_eq!(token.actions, own.iter().fold(0, |set, e| set | bit(e.action)));
            assert_eq!((token.first, token.last), (own[0].time, own[own.len() - 1].time));
            assert!(own.iter().all(|e| e.item == token.item && e.fields[0] == token.fields[0]));
            assert_eq!((&token.requested, token.fields[1]), (&own[0].fields, own[own.len() - 1].fields[1]));
            assert_eq!(token.fields[2], own.iter().map(|e| e.fields[2]).max().unwrap());
        }
        assert!(rest.is_empty(), "{} events are in no token", rest.len());
        (merged, whole) = (merged + tokens.len(), whole + events.len());
    }
    assert!(merged * 4 < whole * 3, "{merged} tokens of {whole} events: too little merges to test anything");
}

#[test]
fn a_stream_agrees_after_any_closing_and_taking_back() {
    let tokenizers = tokenizers();
    let (mut reopened, mut refused) = (0, 0);
    for stream in 0..100_000u64 {
        let mut rng = Rng::for_stream(12, stream);
        let tokenizer = &tokenizers[stream as usize % tokenizers.len()];
        let mut online = Stream::new(tokenizer);
        // What the stream should stand for: sessions of events, and the tokens handed over.
        let (mut sessions, mut handed, mut now) = (vec![Vec::new()], Vec::new(), 0);
        for _ in 0..16 {
            match rng.below(8) {
                0 => {
                    handed.extend(online.close());
                    sessions.push(Vec::new());
                }
                1 | 2 => {
                    let held = online.open().map_or(0, |t| t.count as usize);
                    let taken = rng.below(held + 2);
                    let before = handed.len();
                    let own = sessions.last_mut().unwrap();
                    match online.roll_back(taken) {
                        Ok(()) => {
                            own.truncate(own.len() - taken);
                            now = own.last().map_or(now, |e: &CodedEvent| e.time.unwrap());
                            if taken > 0 && taken == held && online.open().is_some() {
                                assert_eq!(handed.pop().as_ref().map(bits), online.open().map(bits));
                                reopened += 1;
                            }
                        }
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::InvalidArgument);
                            assert!(taken > held || (taken == held && before > 0), "{e}");
                            refused += usize::from(taken == held);
                        }
                    }
                }
                _ => {
                    let e = event(&mut rng, &mut now);
                    sessions.last_mut().unwrap().push(e.clone());
                    if let Pushed::Opened(Some(closed)) = online.push(e) {
                        handed.push(closed);
                    }
                }
            }
        }
        handed.extend(online.open().cloned());
        let mut want = History::default();
        for own in &sessions {
            tokenizer.merge(&history(own), 0..own.len(), &mut want);
        }
        assert!(same(&want, &appended(tokenizer, &handed)), "stream {stream}");
    }
    assert!(reopened > 1000 && refused > 100, "{reopened} reopened, {refused} refused");
}

#[test]
fn joining_is_associative() {
    let tokenizer = &tokenizers()[0];
    let mut rng = Rng::new(13);
    for _ in 0..10_000 {
        let mut now = 0;
        let mut token = || tokenizer.single(&event(&mut rng, &mut now));
        let (a, b, c) = (token(), token(), token());
        let left = tokenizer.join(&tokenizer.join(&a, &b, 0), &c, 0);
        let right = tokenizer.join(&a, &tokenizer.join(&b, &c, 0), 0);
        assert_eq!(bits(&left), bits(&right));
    }
}

/// The symbols of a run of these actions on one item.
fn symbols(tokenizer: &Tokenizer, actions: &[u16]) -> Vec<String> {
    let one =
        |action: &u16| CodedEvent { item: 0, time: Some(0), action: *action, value: f32::NAN, fields: vec![0; 3] };
    let events: Vec<CodedEvent> = actions.iter().map(one).collect();
    batch(tokenizer, &events).action.iter().map(|s| tokenizer.symbol(*s).to_owned()).collect()
}

#[test]
fn the_budget_chooses_between_granularity_and_compression() {
    let [one, two, any] = tokenizers().try_into().unwrap();
    let run = [0, 0, 1, 0, 0, 1, 2];
    assert_eq!(symbols(&any, &run), ["view + view + like", "view + view + like", "buy"]);
    assert_eq!(symbols(&two, &run), ["view + view + like", "view + view + like"]);
    assert_eq!(symbols(&one, &run), ["view + view + like"]);
    // The purchase is not in the symbol, but it is seen: the last field is the terminal action's.
    let seen = |t: &Tokenizer, actions: &[u16]| {
        let one = |a: &u16| CodedEvent { item: 0, time: Some(0), action: *a, value: f32::NAN, fields: vec![0; 3] };
        batch(t, &actions.iter().map(one).collect::<Vec<_>>()).fields[5].clone()
    };
    assert_eq!(one.schema().event_fields[5].field.name, "token.buy");
    assert_eq!((seen(&one, &run), seen(&one, &run[..6])), (vec![2], vec![1]));
    assert_eq!(seen(&any, &run), [1, 1, 2]);
}

#[test]
fn the_most_frequent_pairs_are_learned_and_only_from_runs() {
    // Three kinds of runs on one item after another, a day apart.
    let runs: [(&[u16], usize); 3] = [(&[0, 0, 1], 40), (&[0, 2], 25), (&[1, 2], 9)];
    let mut events = Vec::new();
    let mut now = 0;
    for (actions, times) in runs {
        for _ in 0..times {
            now += 86_400_000;
            let fields = vec![0; 3];
            events.extend(actions.iter().map(|a| CodedEvent {
                item: 0,
                time: Some(now),
                action: *a,
                value: 2.0,
                fields: fields.clone(),
            }));
        }
    }
    let learn = |options: &TokenizerOptions| {
        Tokenizer::learn(&schema(), options, &history(&events), &[0, events.len()]).unwrap()
    };
    let learned = learn(&options(1));
    let found: Vec<(&str, u64)> =
        (3..).zip(&learned.vocabulary().merges).map(|(s, m)| (learned.symbol(s), m.count)).collect();
    // like buy stands 9 times, which is too rare.
    assert_eq!(found, [("view + view", 40), ("view + view + like", 40), ("view + buy", 25)]);
    assert_eq!(
        learn(&TokenizerOptions { merges: 1, ..options(1) }).vocabulary().merges,
        learned.vocabulary().merges[..1]
    );
    assert_eq!(learned, learn(&options(1)));
    // Sums of two and three values of 2: bounds of the merged values, not of 2.
    assert_eq!(learned.vocabulary().value, [4.0]);
    assert_eq!(learned.schema().value, Some(FieldKind::Numeric(vec![4.0])));
}

#[test]
fn a_history_without_times_or_actions_merges_by_item() {
    let tokenizer = &tokenizers()[0];
    let plain = History { items: vec![5, 5, 6, 5], ..History::default() };
    let mut merged = History::default();
    tokenizer.merge(&plain, 0..4, &mut merged);
    assert_eq!(merged.items, [5, 6, 5]);
    assert!(merged.time.is_empty() && merged.first.is_empty() && merged.action.is_empty());
    // Buckets of the count; the span and the set of actions are not known.
    assert_eq!(merged.fields[3], [2, 1, 1]);
    assert_eq!(merged.fields[4], [0, 0, 0]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let fails = |change: &dyn Fn(&mut TokenVocabulary)| {
        let mut v = vocabulary(1);
        change(&mut v);
        Tokenizer::new(&schema(), v).unwrap_err().kind()
    };
    assert_eq!(fails(&|v| v.version = 2), ErrorKind::StateMismatch);
    assert_eq!(fails(&|v| v.merges[0].left = 3), ErrorKind::Corrupt);
    assert_eq!(fails(&|v| v.merges[0].right = 3), ErrorKind::Corrupt);
    assert_eq!(fails(&|v| v.merges[2] = v.merges[0]), ErrorKind::Corrupt);
    assert_eq!(fails(&|v| v.count = vec![2.0, 1.0]), ErrorKind::Corrupt);
    assert_eq!(fails(&|v| v.value = vec![f32::NAN]), ErrorKind::Corrupt);
    assert_eq!(fails(&|v| v.options.surface = "reason".into()), ErrorKind::InvalidConfig);
    assert_eq!(fails(&|v| v.options.terminal = vec!["sell".into()]), ErrorKind::InvalidConfig);
    let many = Schema { actions: (0..65).map(|a| a.to_string()).collect(), ..Schema::default() };
    let v = TokenVocabulary { options: TokenizerOptions { max_gap: 1, ..Default::default() }, ..vocabulary(1) };
    assert_eq!(Tokenizer::new(&many, v).unwrap_err().kind(), ErrorKind::InvalidConfig);
}
