//! Bounds the work of parsing. Rhai compares each name that it reads with all functions and
//! variables before it, and each key of a map literal with the keys before it, so its time grows
//! with the square of their number. The tokens of a text pass [`follow`], which counts these
//! comparisons. It ends the parsing where they are too many, and after Ctrl-C.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use rhai::{AST, Engine, Identifier, LexError, ParseError, Scope, Token};

use super::bounds::{MAX_COMPARISONS, STOPPED, TOO_MANY_NAMES};
use super::catching;
use crate::progress::interrupt_requested;

/// A text is parsed so long after its begin although the user has interrupted: a script that reacts
/// to the interruption may still import a module.
const GRACE: Duration = Duration::from_millis(500);

thread_local! {
    /// The text that this thread is parsing.
    static PARSING: RefCell<Parsing> = RefCell::new(Parsing::begin());
}

/// Parses a text, without optimisation.
///
/// # Errors
/// A mistake in the text. If it has too many names, or the user has interrupted, the mistake is
/// `LexError::Runtime` with a text of `bounds`.
pub(crate) fn parse(engine: &Engine, text: &str) -> Result<AST, ParseError> {
    parse_in(engine, &Scope::new(), text)
}

/// The same for a text that uses variables of a scope.
///
/// # Errors
/// The same.
pub(crate) fn parse_in(engine: &Engine, scope: &Scope, text: &str) -> Result<AST, ParseError> {
    begin();
    engine.compile_with_scope(scope, text)
}

/// True if a text is an expression without a statement.
pub(crate) fn is_expression(engine: &Engine, text: &str) -> bool {
    begin();
    engine.compile_expression(text).is_ok()
}

fn begin() {
    PARSING.with_borrow_mut(|parsing| *parsing = Parsing::begin());
}

/// Follows the next token. Returns an error in its place if parsing has to end.
pub(crate) fn follow(token: Token) -> Token {
    catching::note(&token);
    match PARSING.with_borrow_mut(|parsing| parsing.stops_at(&token, interrupt_requested())) {
        Some(why) => Token::LexError(LexError::Runtime(why.to_string()).into()),
        None => token,
    }
}

/// What is known of the text between its begin and the last token.
struct Parsing {
    began: Instant,
    comparisons: u64,
    over: Option<&'static str>,
    blocks: Vec<Block>,
    /// Named functions, and bars of closures, of which each has two.
    functions: u64,
    bars: u64,
    /// Different names of variables since the begin of the function, or of the text outside of
    /// functions.
    names: HashSet<Identifier>,
    /// Those outside of the function that begins now.
    outside: Option<HashSet<Identifier>>,
    word: Option<Word>,
    after_point: bool,
}

/// An open brace.
struct Block {
    /// Number of keys, if this is a map literal.
    keys: Option<u64>,
    /// The names outside, if this is the body of a function.
    outside: Option<HashSet<Identifier>>,
}

/// The last token, if the next one decides what it is.
enum Word {
    Name(Identifier),
    Text,
}

impl Parsing {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            comparisons: 0,
            over: None,
            blocks: Vec::new(),
            functions: 0,
            bars: 0,
            names: HashSet::new(),
            outside: None,
            word: None,
            after_point: false,
        }
    }

    /// Counts a token. Returns the reason to end, which stays the same for all further tokens.
    fn stops_at(&mut self, token: &Token, interrupted: bool) -> Option<&'static str> {
        if self.over.is_none() {
            self.count(token);
            if self.comparisons > MAX_COMPARISONS {
                self.over = Some(TOO_MANY_NAMES);
            } else if interrupted && self.began.elapsed() > GRACE {
                self.over = Some(STOPPED);
            }
        }
        self.over
    }

    fn count(&mut self, token: &Token) {
        match (self.word.take(), token, self.blocks.last_mut()) {
            (Some(_), Token::Colon, Some(Block { keys: Some(keys), .. })) => {
                self.comparisons += *keys;
                *keys += 1;
            }
            // The name of a function is compared when it runs.
            (Some(Word::Name(_)), Token::LeftParen | Token::Unit | Token::Bang | Token::DoubleColon, _) => (),
            (Some(Word::Name(name)), ..) => {
                self.comparisons += self.functions + self.bars / 2 + self.names.len() as u64;
                self.names.insert(name);
            }
            _ => (),
        }
        let field = std::mem::replace(&mut self.after_point, matches!(token, Token::Period | Token::Elvis));
        match token {
            Token::Identifier(name) if !field => self.word = Some(Word::Name((**name).clone())),
            Token::StringConstant(_) => self.word = Some(Word::Text),
            Token::Fn => {
                self.functions += 1;
                let names = std::mem::take(&mut self.names);
                self.outside.get_or_insert(names);
            }
            Token::Pipe => self.bars += 1,
            Token::Or => self.bars += 2,
            Token::LeftBrace => self.blocks.push(Block { keys: None, outside: self.outside.take() }),
            Token::MapStart => self.blocks.push(Block { keys: Some(0), outside: None }),
            Token::RightBrace => {
                if let Some(names) = self.blocks.pop().and_then(|block| block.outside) {
                    self.names = names;
                }
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::language::syntax;

    fn comparisons(text: &str) -> u64 {
        parse(&syntax::engine(), text).unwrap();
        PARSING.with_borrow(|parsing| parsing.comparisons)
    }

    #[test]
    fn names_are_counted_where_they_are_compared() {
        // The second name is compared with the first one, the third with both.
        assert_eq!(comparisons("let a = 1; let b = 2; let c = 3;"), 3);
        assert_eq!(comparisons("let a = 1; a; a;"), 2);
        // Keys are compared within their map, fields and functions not at all.
        assert_eq!(comparisons("#{ a: 1, \"b\": 2, c: #{ d: 1, e: 2 } }"), 1 + 2 + 1);
        assert_eq!(comparisons("let a = #{}; a.b.c(1).d; f(1); m::f(1);"), 1);
        // Variables end with their function, and each function is one more.
        assert_eq!(comparisons("let a = 1; fn f(x) { x } fn g(y) { y } let b = 1;"), (1 + 2) + (2 + 3) + 3);
        assert_eq!(comparisons("let a = 1; let f = |x| 1;"), 1 + 2);
        assert_eq!(comparisons("let a = `${1} ${#{ b: 1, c: 2 }.len()}`; let b = a;"), 1 + 1 + 2);
        // A text begins anew.
        assert_eq!(comparisons("let a = 1;"), 0);
    }

    #[test]
    fn parsing_hears_an_interruption() {
        let mut parsing = Parsing::begin();
        assert_eq!(parsing.stops_at(&Token::Let, true), None);
        parsing.began = Instant::now().checked_sub(2 * GRACE).unwrap();
        assert_eq!(parsing.stops_at(&Token::Let, false), None);
        assert_eq!(parsing.stops_at(&Token::Let, true), Some(STOPPED));
        assert_eq!(parsing.stops_at(&Token::Let, false), Some(STOPPED));
    }

    #[test]
    fn parsing_ends_at_the_first_comparison_too_many() {
        let keys: String = (0..20_000).map(|i| format!("k{i}: 1, ")).collect();
        let error = parse(&syntax::engine(), &format!("let a = #{{{keys}}};")).unwrap_err();
        assert!(error.to_string().contains(TOO_MANY_NAMES), "{error}");
        assert_eq!(comparisons("let a = 1;"), 0);
    }
}
