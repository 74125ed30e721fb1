//! How this process is called where nobody named it.

use nix::unistd::gethostname;

use super::{Resolved, ResolvedSettings, Source};

const KEY: &str = "instance_id";
/// Of the machine's name; an `instance_id` has 200 bytes at most, and the command comes behind.
const MOST: usize = 180;

/// The name of this machine.
pub fn host_name() -> String {
    let name = gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Names the process by machine and command where no `instance_id` is given: two commands on one
/// machine are two instances, and each is the same after a restart.
pub fn name_instance(resolved: &mut ResolvedSettings, command: &str) {
    let given = resolved
        .get(KEY)
        .is_some_and(|given| !given.value.is_empty());
    if !given {
        let value = default_name(&host_name(), command);
        let source = Source::Default;
        resolved.insert(KEY.to_owned(), Resolved { value, source });
    }
}

/// With the characters that Kafka allows in names.
fn default_name(host: &str, command: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let host = host.chars().take(MOST);
    let host = host.map(|letter| if allowed(letter) { letter } else { '-' });
    host.chain("-".chars()).chain(command.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{InstanceName, Kind};
    use super::*;

    #[test]
    fn a_process_that_nobody_named_is_called_by_machine_and_command() {
        assert_eq!(default_name("web-1", "up"), "web-1-up");
        assert_eq!(default_name("b\u{fc}ro 1", "loader"), "b-ro-1-loader");
        let long = default_name(&"x".repeat(255), "processor");
        assert!(InstanceName::read(&long).is_ok());
        let mut resolved = ResolvedSettings::new();
        name_instance(&mut resolved, "processor");
        assert!(resolved[KEY].value.ends_with("-processor"));
        resolved.get_mut(KEY).expect("it is there").value = "mine".to_owned();
        name_instance(&mut resolved, "processor");
        assert_eq!(resolved[KEY].value, "mine");
    }
}
