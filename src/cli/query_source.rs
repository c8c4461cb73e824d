//! Whose rows say what of a context matters, as `kvprof eval` takes it.

use clap::ValueEnum;
use kvprof::dataset::Protocol;
use kvprof::eval::QuerySource;
use kvprof::model::tokenizer::Tokenizer;

/// What nobody asked, unless another is given.
const DUMMY: &str = "What does the text above say? Repeat its most important facts.";

/// Where scorers look from, behind a context that is cut before its question comes.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct QueryArguments {
    /// Whose rows scorers look from under --protocol question-after
    #[arg(long, value_enum, default_value = "context")]
    observe_from: Source,
    /// The question of --observe-from dummy
    #[arg(long, value_name = "TEXT", default_value = DUMMY)]
    dummy_question: String,
}

/// Names of [`QuerySource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Source {
    /// The context's own last rows.
    Context,
    /// A question that nobody asked, fed behind the context and taken back.
    Dummy,
    /// The real question: what a right guess would be worth; evaluations only.
    Question,
}

impl QueryArguments {
    /// Refuses another source than the prompt's end where the question is prefilled with it.
    pub fn check(&self, protocol: Protocol) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.observe_from == Source::Context || protocol == Protocol::QuestionAfter,
            "--observe-from looks from behind a context that is prefilled alone: add --protocol question-after, or \
             leave it out"
        );
        anyhow::ensure!(
            self.observe_from == Source::Dummy || self.dummy_question == DUMMY,
            "--dummy-question belongs to --observe-from dummy: add it, or leave it out"
        );
        anyhow::ensure!(
            !self.dummy_question.trim().is_empty(),
            "--dummy-question is empty: it must ask something"
        );
        Ok(())
    }

    /// Whether something is fed to the full cache and taken back.
    pub fn rewinds(&self) -> bool {
        self.observe_from != Source::Context
    }

    /// The source, in a model's tokens.
    pub fn source(&self, tokenizer: &Tokenizer) -> anyhow::Result<QuerySource> {
        Ok(match self.observe_from {
            Source::Context => QuerySource::Context,
            Source::Question => QuerySource::Question,
            Source::Dummy => {
                let text = format!("\n\n{}", self.dummy_question);
                let ids = tokenizer.encode(&text)?;
                QuerySource::Dummy { text, ids }
            }
        })
    }

    /// Its name in files, where it is not the prompt's end.
    pub fn in_files(&self) -> Option<String> {
        let source = match self.observe_from {
            Source::Context => return None,
            Source::Question => QuerySource::Question,
            Source::Dummy => QuerySource::Dummy {
                text: self.dummy_question.clone(),
                ids: Vec::new(),
            },
        };
        Some(source.to_string())
    }
}
