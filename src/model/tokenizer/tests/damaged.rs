//! Metadata of any kind is read or refused, never a panic.

use proptest::prelude::*;

use super::*;

fn any_value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just(String::new()),
        Just("a b".to_owned()),
        Just("<0xFF>".to_owned()),
        Just("<0xé>".to_owned()),
        Just("▁".to_owned()),
        any::<String>(),
    ];
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<u32>().prop_map(Value::U32),
        (0u32..20).prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        word.clone().prop_map(Value::String),
        prop::collection::vec(word.prop_map(Value::String), 0..20).prop_map(Value::Array),
        prop::collection::vec((-1i32..8).prop_map(Value::I32), 0..300).prop_map(Value::Array),
        prop::collection::vec(any::<f32>().prop_map(Value::F32), 250..300).prop_map(Value::Array),
    ]
}

const KEYS: &[&str] = &[
    "model",
    "pre",
    "tokens",
    "token_type",
    "scores",
    "merges",
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "unknown_token_id",
    "add_bos_token",
    "add_space_prefix",
];

/// Replaces a field, or one element of an array field.
fn mutation() -> impl Strategy<Value = (&'static str, Option<usize>, Value)> {
    (
        prop::sample::select(KEYS),
        prop::option::of(0usize..300),
        any_value(),
    )
}

proptest! {
    #[test]
    fn no_metadata_panics(
        is_llama in any::<bool>(),
        mutations in prop::collection::vec(mutation(), 1..4),
        text in "(<s>|[ab]| |é|12|\\PC){0,12}",
    ) {
        let mut metadata = if is_llama { sentence_piece() } else { byte_level() };
        for (key, element, value) in mutations {
            let key = format!("tokenizer.ggml.{key}");
            let old = metadata.iter_mut().find(|(name, _)| *name == key);
            match (element, old) {
                (Some(index), Some((_, Value::Array(items)))) if !items.is_empty() => {
                    let index = index % items.len();
                    items[index] = value;
                }
                _ => metadata = set(&metadata, &key, value),
            }
        }
        let Some(toy) = Toy::new(&metadata) else { return Ok(()) };
        let Ok(gguf) = Gguf::open(&toy.path("toy.gguf")) else { return Ok(()) };
        if let Ok(tokenizer) = Tokenizer::from_gguf(&gguf)
            && let Ok(ids) = tokenizer.encode_with_bos(&text)
        {
            tokenizer.decode(&ids).unwrap();
            let mut stream = tokenizer.stream(false);
            for id in ids {
                stream.push(id).unwrap();
            }
            stream.finish();
        }
    }
}
