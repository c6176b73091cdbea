//! librdkafka 1.9.2 against one broker: driven by lines of JSON (see remote.py), or a member of a group (groups.py).

mod administration;
mod calls;
mod data;
mod member;

use std::error::Error;

/// What went wrong, in words: this program only passes it on.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["version"] => println!("{}", rdkafka::util::get_rdkafka_version().1),
        ["calls", bootstrap] => calls::serve(bootstrap)?,
        ["member", bootstrap, group, topic, assignor, instance] => {
            member::run(bootstrap, group, topic, assignor, instance)?;
        }
        _ => return Err(format!("cannot be run with {words:?}").into()),
    }
    Ok(())
}
