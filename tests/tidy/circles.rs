//! Which files of the library name which, and the circles between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path from the root of the crate.
type Module = Vec<String>;

/// The source files of a crate by the modules that they are.
pub struct Files {
    code: BTreeMap<Module, String>,
    uses: BTreeMap<Module, Vec<Vec<String>>>,
}

impl Files {
    /// Those below a folder, whose `lib.rs` is the root.
    pub fn read(root: &Path, paths: &[PathBuf]) -> Self {
        let mut code = BTreeMap::new();
        for path in paths {
            let relative = path.strip_prefix(root).unwrap().with_extension("");
            let parts = relative
                .iter()
                .map(|part| part.to_str().unwrap().to_owned());
            let mut module: Module = parts.collect();
            module.pop_if(|last| last == "mod" || last == "lib");
            code.insert(module, without_tests(&fs::read_to_string(path).unwrap()));
        }
        Self::of(code)
    }

    /// The same from texts, by module.
    pub fn of(code: BTreeMap<Module, String>) -> Self {
        let uses = |text: &String| statements(text).flat_map(|tree| expanded(&tree)).collect();
        let uses = code
            .iter()
            .map(|(module, text)| (module.clone(), uses(text)));
        let uses = uses.collect();
        Self { code, uses }
    }

    /// Pairs of files that lie on a circle, as `user -> used`.
    ///
    /// A module that is a folder may name what is in it: only its children name it.
    pub fn circles(&self) -> Vec<String> {
        let mut named: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
        for module in self.code.keys().filter(|module| !is_test(module)) {
            let inner = paths(&self.code[module]);
            let used = self.uses[module].iter().cloned().chain(inner);
            let used = used.filter_map(|path| self.defining(module, &path, 0));
            let other = used.filter(|used| !used.starts_with(module) && !is_test(used));
            named.insert(module, other.collect());
        }
        let reached: BTreeMap<&Module, BTreeSet<&Module>> = named
            .keys()
            .map(|from| (*from, reached(from, &named)))
            .collect();
        let mut circles = Vec::new();
        for (user, used) in &named {
            let back = used.iter().filter(|used| reached[*used].contains(user));
            circles.extend(back.map(|used| format!("{} -> {}", user.join("::"), used.join("::"))));
        }
        circles
    }

    /// The file that defines what `path` names in `module`; re-exports are followed.
    fn defining(&self, module: &Module, path: &[String], depth: usize) -> Option<&Module> {
        let mut rest = path;
        let mut at = match rest.first()?.as_str() {
            "crate" | "kvprof" => Module::new(),
            "self" | "super" => module.clone(),
            child if self.code.contains_key(&joined(module, child)) => module.clone(),
            _ => return None,
        };
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" | "kvprof" | "self" => {}
                "super" => at.truncate(at.len().saturating_sub(1)),
                child if self.code.contains_key(&joined(&at, child)) => at.push(child.to_owned()),
                _ => break,
            }
            rest = &rest[1..];
        }
        let (own, uses) = (self.code.get_key_value(&at)?.0, &self.uses[&at]);
        let Some(item) = rest.first().filter(|_| depth < 8) else {
            return Some(own);
        };
        let exported = uses
            .iter()
            .filter(|used| used.last() == Some(item) && *used != path);
        let mut defined = exported.filter_map(|used| self.defining(own, used, depth + 1));
        Some(defined.next().unwrap_or(own))
    }
}

fn joined(module: &Module, child: &str) -> Module {
    let child = child.to_owned();
    module.iter().cloned().chain([child]).collect()
}

fn is_test(module: &Module) -> bool {
    let names = module.iter().map(String::as_str);
    names
        .clone()
        .any(|name| name == "tests" || name.ends_with("_tests"))
}

fn reached<'a>(
    from: &'a Module,
    named: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
) -> BTreeSet<&'a Module> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for used in named.get(module).into_iter().flatten() {
            if found.insert(*used) {
                open.push(*used);
            }
        }
    }
    found
}

/// Code without comments and without modules of tests.
fn without_tests(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut kept = String::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find("#[cfg(test)]\nmod tests {") {
        kept.push_str(&rest[..at]);
        // rustfmt ends a module at the margin.
        let end = rest[at..]
            .find("\n}")
            .map_or(rest.len(), |end| at + end + 2);
        rest = &rest[end..];
    }
    kept + rest
}

/// The trees of all `use` statements.
fn statements(code: &str) -> impl Iterator<Item = String> {
    code.split(';').filter_map(|statement| {
        let at = statement.rfind("use ")?;
        let before = statement[..at].chars().next_back();
        let starts = before.is_none_or(char::is_whitespace);
        let tree = statement[at + 4..]
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let is_tree = |c: char| c.is_alphanumeric() || "_:{}, *".contains(c);
        (starts && tree.chars().all(is_tree)).then_some(tree)
    })
}

/// The paths of a tree.
fn expanded(tree: &str) -> Vec<Vec<String>> {
    let Some((prefix, group)) = tree.split_once('{') else {
        let plain = tree.split(" as ").next().unwrap_or_default().trim();
        let parts = plain
            .split("::")
            .filter(|part| *part != "*" && *part != "self");
        let own = plain.starts_with("self::").then_some("self");
        let path: Vec<String> = own.into_iter().chain(parts).map(str::to_owned).collect();
        return if plain.is_empty() {
            Vec::new()
        } else {
            vec![path]
        };
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut items) = (0, vec![String::new()]);
    for c in group.chars() {
        match c {
            ',' if depth == 0 => items.push(String::new()),
            _ => items.last_mut().unwrap().push(c),
        }
        depth += i32::from(c == '{') - i32::from(c == '}');
    }
    let items = items.iter().filter(|item| !item.trim().is_empty());
    items
        .flat_map(|item| expanded(&format!("{}{}", prefix.trim(), item.trim())))
        .collect()
}

/// Paths that code names where it uses them.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_word(c));
    let words = words.filter(|word| word.contains("::"));
    let paths = words.map(|word| word.split("::").map(str::to_owned).collect());
    // What stands before a brace belongs to a `use` statement.
    let whole = |path: &Vec<String>| path.iter().all(|part| !part.is_empty());
    paths.filter(whole).collect()
}
