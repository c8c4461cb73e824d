//! Templates in the style of five model families, and templates that misbehave.

use proptest::prelude::*;

use super::*;

const SMOLLM_2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
    {{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}\
    {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Headers, trimmed contents, a date.
const LLAMA_3: &str = r#"{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday: " + strftime_now("%d %b %Y") + "\n\n" }}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

/// Turns must alternate.
const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}\
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n\
    {{ raise_exception('Roles must alternate user/assistant') }}{% endif %}\
    {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
    {% else %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}";

/// A namespace, methods of Python strings, block trimming.
const QWEN_2: &str = "{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' and not message.content.startswith('<tool_response>') %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{% for message in messages %}
{{ '<|im_start|>' ~ message.role }}
{{ message.content.split('</think>')[-1].lstrip('\\n') }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant after {{ ns.last }}
{% endif %}";

const PHI_3: &str = "{% for message in messages %}{% if message['role'] == 'skip' %}{% continue %}{% endif %}\
    {{'<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n'}}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}";

fn conversation(turns: &[(&str, &str)]) -> Vec<Message> {
    turns
        .iter()
        .map(|(role, content)| Message::new(*role, *content))
        .collect()
}

fn render(source: &str, turns: &[(&str, &str)], prompt: bool) -> Result<String> {
    let template = ChatTemplate::new(source, "<s>", "</s>")?.dated(Date::new(2024, 7, 26).unwrap());
    template.render(&conversation(turns), prompt)
}

fn failure_of(source: &str) -> String {
    render(source, &[("user", "Hi")], true)
        .unwrap_err()
        .to_string()
}

#[test]
fn smollm2_style_adds_a_system_message() {
    assert_eq!(
        render(SMOLLM_2, &[("user", "Hi")], true).unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(SMOLLM_2, &[("system", "S"), ("user", "Hi")], false).unwrap(),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    );
}

#[test]
fn llama_3_style_trims_and_dates() {
    assert_eq!(
        render(
            LLAMA_3,
            &[("system", " S "), ("user", " it's <b> \n")],
            true
        )
        .unwrap(),
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday: 26 Jul 2024\n\nS<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nit's <b><|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn mistral_style_refuses_what_it_cannot_say() {
    assert_eq!(
        render(
            MISTRAL,
            &[("user", "a"), ("assistant", "b"), ("user", "c")],
            true
        )
        .unwrap(),
        "<s>[INST] a [/INST]b</s>[INST] c [/INST]"
    );
    let error = render(MISTRAL, &[("user", "a"), ("user", "b")], true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("chat template, line 2") && error.contains("Roles must alternate"),
        "{error}"
    );
}

#[test]
fn qwen_2_style_uses_python_methods_and_trims_blocks() {
    assert_eq!(
        render(
            QWEN_2,
            &[
                ("user", "a"),
                ("assistant", "<think>x</think>\n\nb"),
                ("user", "c")
            ],
            true
        )
        .unwrap(),
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n\
         <|im_start|>assistant after 2\n"
    );
}

#[test]
fn phi_3_style_controls_loops() {
    assert_eq!(
        render(PHI_3, &[("user", "a"), ("skip", "b")], true).unwrap(),
        "<|user|>\na<|end|>\n<|assistant|>\n"
    );
    assert_eq!(
        render(PHI_3, &[("user", "a")], false).unwrap(),
        "<|user|>\na<|end|>\n</s>"
    );
}

#[test]
fn json_looks_like_pythons() {
    let source = r#"{{ {"b": [1, 2.5, true, none, "it's <é>\n"]}|tojson }}{{ []|tojson(indent=2) }}{{ {"a": [1]}|tojson(indent=2) }}"#;
    assert_eq!(
        render(source, &[], false).unwrap(),
        "{\"b\": [1, 2.5, true, null, \"it's <é>\\n\"]}[]{\n  \"a\": [\n    1\n  ]\n}"
    );
}

#[test]
fn errors_name_the_line() {
    for (source, parts) in [
        ("a\n{% if %}", ["line 2", "syntax"]),
        ("a\nb\n{{ messages.missing.more }}", ["line 3", "undefined"]),
        ("{{ 'a'|no_such_filter }}", ["line 1", "no_such_filter"]),
        ("{% include 'secret.txt' %}", ["line 1", "secret.txt"]),
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}",
            ["line", "run for ever"],
        ),
        (
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            ["line", "recursion"],
        ),
        ("{{ 'a' * 10000000000 }}", ["line", ""]),
    ] {
        let error = failure_of(source).to_lowercase();
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{source}: {error}"
        );
    }
}

#[test]
fn deeply_nested_values_do_not_overflow_the_stack() {
    for tail in [
        "{{ ns.x|tojson }}",
        "{{ ns.x|length }}",
        "{{ ns.x }}",
        "{{ ns.x == ns.y }}",
    ] {
        let source = format!(
            "{{% set ns = namespace(x=[], y=[]) %}}{{% for i in range(9999) %}}{{% for i in range(9999) %}}\
             {{% set ns.x = [ns.x] %}}{{% set ns.y = [ns.y] %}}{{% if i > DEPTH %}}{{% break %}}{{% endif %}}\
             {{% endfor %}}{{% if i >= 0 %}}{{% break %}}{{% endif %}}{{% endfor %}}{tail}"
        );
        for depth in ["200", "3000", "99999"] {
            let _ = render(&source.replace("DEPTH", depth), &[("user", "a")], true);
        }
    }
}

#[test]
fn long_conversations_render() {
    let long = "word ".repeat(200_000);
    let turns: Vec<_> = (0..200)
        .map(|i| (if i % 2 == 0 { "user" } else { "assistant" }, "short"))
        .collect();
    for source in [SMOLLM_2, LLAMA_3, MISTRAL, QWEN_2, PHI_3] {
        assert!(render(source, &turns, true).is_ok());
        assert!(render(source, &[("user", &long)], true).unwrap().len() >= long.trim().len());
    }
}

proptest! {
    #[test]
    fn no_template_panics(
        pieces in prop::collection::vec(prop_oneof![
            Just("{% for m in messages %}"), Just("{% endfor %}"), Just("{{"), Just("}}"), Just("{%"), Just("%}"),
            Just("{{ m.content[::-1] }}"), Just("{% if m %}"), Just("{% endif %}"), Just("{% set x = messages %}"),
            Just("{{ messages|tojson }}"), Just("{% macro f(a) %}"), Just("{% endmacro %}"), Just("{{ f(f) }}"),
            Just("{% for i in range(9999) %}"), Just("{{ x * 99999 }}"), Just("{{ 'é'[1:]|upper|center(9999999) }}"),
            Just("{#"), Just("#}"), Just("{% break %}"), Just("{% raw %}"), Just("{{ 9223372036854775807 * 9 }}"),
            Just("{{ 1 // 0 }}"), Just("{{ 'a'.split('') }}"), Just("{{ '%s'|format(messages) }}"), Just("\n"),
        ], 0..12),
        noise in "\\PC{0,8}",
        at in 0usize..13,
    ) {
        let mut pieces: Vec<&str> = pieces;
        pieces.insert(at.min(pieces.len()), &noise);
        let _ = render(&pieces.concat(), &[("user", "naïve"), ("assistant", "")], true);
    }
}
