//! Which prompts ask about the same context, so that one cut may serve them.

use std::collections::BTreeMap;

use super::case::Case;

/// Groups cases by the tokens that are prefilled, in the order of their first; every case by itself where `together`
/// is false, or where its question is prefilled with its context.
///
/// Shapes: indices of `cases`, ascending within a group.
pub fn contexts(cases: &[Case], together: bool) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: BTreeMap<&[u32], usize> = BTreeMap::new();
    for (index, case) in cases.iter().enumerate() {
        if !together || case.question_tokens == 0 {
            groups.push(vec![index]);
            continue;
        }
        let group = *known.entry(case.context()).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(index);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(ids: &[u32], question_tokens: usize) -> Case {
        Case {
            ids: ids.to_vec(),
            question_tokens,
            ..Case::default()
        }
    }

    #[test]
    fn questions_of_one_context_stand_together() {
        let cases = [
            case(&[1, 2, 9], 1),
            case(&[1, 3, 9], 1),
            case(&[1, 2, 7, 8], 2),
            case(&[1, 2], 0),
            case(&[1, 2], 0),
        ];
        let groups = [vec![0, 2], vec![1], vec![3], vec![4]];
        assert_eq!(contexts(&cases, true), groups);
        assert_eq!(contexts(&cases, false).len(), 5);
    }
}
