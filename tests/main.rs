//! All integration tests: a table of contents. Fixtures and how they were made: `fixtures/README.md`.

mod invariance;
mod oracle;
mod precision;
mod second_opinion;
