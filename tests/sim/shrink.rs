//! Makes the plan of a world smaller while the world still fails: fewer visitors, events and visits.

use crate::plan::Plan;

/// Returns a smaller plan of which `fails` is still true.
pub fn shrink(plan: Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut plan = plan;
    loop {
        let size = size(&plan);
        without_some(
            &mut plan,
            |plan| plan.visitors.len(),
            remove_visitors,
            &fails,
        );
        without_some(&mut plan, |plan| plan.events.len(), remove_events, &fails);
        for number in 0..plan.visitors.len() {
            while plan.visitors[number].visits > 1 {
                let mut smaller = plan.clone();
                smaller.visitors[number].visits /= 2;
                if !fails(&smaller) {
                    break;
                }
                plan = smaller;
            }
        }
        if self::size(&plan) == size {
            return plan;
        }
    }
}

fn size(plan: &Plan) -> usize {
    let visits: usize = plan.visitors.iter().map(|visitor| visitor.visits).sum();
    visits + plan.visitors.len() + plan.events.len()
}

fn remove_visitors(plan: &mut Plan, from: usize, to: usize) {
    plan.visitors.drain(from..to);
}

fn remove_events(plan: &mut Plan, from: usize, to: usize) {
    plan.events.drain(from..to);
}

/// Tries to remove items, first many at once and then each.
fn without_some(
    plan: &mut Plan,
    count: impl Fn(&Plan) -> usize,
    remove: impl Fn(&mut Plan, usize, usize),
    fails: impl Fn(&Plan) -> bool,
) {
    let mut step = count(plan).next_power_of_two();
    while step > 0 {
        let mut at = 0;
        while at < count(plan) {
            let mut smaller = plan.clone();
            remove(&mut smaller, at, count(plan).min(at + step));
            match fails(&smaller) {
                true => *plan = smaller,
                false => at += step,
            }
        }
        step /= 2;
    }
}
