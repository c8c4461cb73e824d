//! Prompts: readers for the field's formats, templates, and a generator of prompts of our own.
