//! Prompts in the style of 2WikiMultihopQA.
