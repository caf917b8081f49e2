use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn entry(scope: &str) -> Credential {
    Credential { scope: scope.to_owned(), ..Credential::default() }
}

fn found(address: &str) -> Option<String> {
    let scopes = ["https://h", "https://h/a", "https://h/a/b/", "s3://bucket", "ftp://h:2121"];
    let credentials = Credentials::new(scopes.map(entry));
    credentials.lookup(address).map(|entry| entry.scope.clone())
}

#[test]
fn the_longest_scope_of_whole_parts_wins() {
    assert_eq!(found("https://h/x").as_deref(), Some("https://h"));
    assert_eq!(found("https://user:pw@H:443/a?x=1").as_deref(), Some("https://h/a"));
    assert_eq!(found("https://h/ab").as_deref(), Some("https://h"));
    assert_eq!(found("https://h/a/b/c").as_deref(), Some("https://h/a/b/"));
    assert_eq!(found("https://h/a/../c").as_deref(), Some("https://h"));
    assert_eq!(found("s3://bucket/key").as_deref(), Some("s3://bucket"));
    assert_eq!(found("ftp://h:2121/x").as_deref(), Some("ftp://h:2121"));
    for other in ["http://h/a", "https://h.evil/a", "s3://bucket2/key", "ftp://h/x", "/a/b"] {
        assert_eq!(found(other), None, "{other}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let entry = Credential { password: Some(Secret::new("hunter2")), ..Credential::default() };
    assert!(!format!("{entry:?}").contains("hunter2"));
    assert!(!format!("{:?}", Credentials::new([entry])).contains("hunter2"));
}

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        // In one step, as careful programs do.
        let next = self.0.path().join("next");
        std::fs::write(&next, text).expect("written");
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(mode)).expect("a mode");
        std::fs::rename(next, &path).expect("renamed");
        path
    }

    fn load(&self, text: &str) -> Result<Credentials, CredentialsError> {
        Credentials::load(self.write("credentials.toml", text, 0o600))
    }
}

fn user_of(credentials: &Credentials, address: &str) -> Option<(String, String)> {
    let found = credentials.lookup(address)?;
    let password = found.password.as_ref().map_or("", Secret::reveal).to_owned();
    Some((found.user.clone().unwrap_or_default(), password))
}

#[test]
fn the_address_wins_over_the_file_and_the_file_over_the_environment_and_netrc() {
    let room = Room::new();
    let text = "[[credential]]\nscope = 'https://h/data'\nuser = 'ann'\npassword = 'A'\n\
        [[credential]]\nscope = 'sftp://h'\nuser = 'ann'\nkey_file = 'key'\n";
    let netrc = room.write("netrc", "machine h login net password N\n", 0o600);
    let tokens = [("KEELBOAT_TOKEN_DATA__1_EXAMPLE_ORG".to_owned(), "T".to_owned())];
    let file = room.write("credentials.toml", text, 0o600);
    let all = Inner::default().with_file(file).unwrap();
    let all = Credentials::of(all.with_tokens(tokens.into_iter()).with_netrc(netrc).unwrap());
    let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
    assert_eq!(user_of(&all, "https://bob:b%40@h/data/x"), pair("bob", "b@"));
    assert_eq!(user_of(&all, "https://ann@h/data/x"), pair("ann", "A"));
    assert_eq!(user_of(&all, "https://bob@h/data/x"), pair("bob", ""));
    assert_eq!(user_of(&all, "https://net@h/data/x"), pair("net", "N"));
    assert_eq!(user_of(&all, "https://h/data/x"), pair("ann", "A"));
    assert_eq!(user_of(&all, "https://h/x"), pair("net", "N"));
    assert_eq!(user_of(&all, "s3://h/x"), None);
    let key = all.lookup("sftp://bob@h/x").and_then(|found| found.key_file.clone());
    assert_eq!(key, Some(room.0.path().join("key")), "relative to the file");
    let token = |address| all.lookup(address).and_then(|found| found.bearer().unwrap());
    assert_eq!(token("https://data-1.example.org/x"), Some(Secret::new("T")));
    for other in ["http://data-1.example.org/x", "https://data-1.example.org:8443/x"] {
        assert_eq!(token(other), None, "{other}");
    }
}

#[test]
fn what_others_can_read_is_refused() {
    let room = Room::new();
    for mode in [0o640, 0o604, 0o620, 0o666] {
        let path = room.write("open", "", mode);
        let error = Credentials::load(&path).expect_err("refused");
        assert!(error.cause.contains(&format!("{mode:04o}")), "{error}");
        assert!(error.hint.contains("chmod 600"), "{}", error.hint);
        Inner::default().with_netrc(path).expect_err("netrc is refused, too");
    }
    Credentials::load(room.0.path().join("missing")).expect_err("named, so it must be there");
    Inner::default().with_netrc(room.0.path().join("missing")).expect("it need not be there");
}

/// What is written, what is said of it, the line as it is shown, and what to write.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    (
        "scope = 'https://h'\npasword = 'hunter2'\n",
        "line 4: unknown key `pasword`",
        "4 │ pasword = ...",
        "scope, user, password",
    ),
    (
        "scope = 'https://h'\n  password = 77123\n",
        "line 4: `password` is of another kind: expected a",
        "credentials.toml:4:3]",
        "write password = \"...\"",
    ),
    (
        "scope = 'https://h'\nheaders = { A = 77123 }\n",
        "line 4: `A` is of another kind: expected a",
        "4 │ A = ...",
        "[[credential]]",
    ),
    (
        "scope = 'https://h'\npassword = 'hunter2\n",
        "line 4: this is not TOML",
        "4 │ password = ...",
        "write password",
    ),
    ("passphrase = \"\"\"\nhunter2=hunter2\n", "line ", "│ ...", "[[credential]]"),
    ("user = 'hunter2'\n", "line 2: it has no `scope`", "2 │ [[credential]]", "scope = "),
    (
        "user = 'a'\nscope = 'https://u:hunter2@h/'\n",
        "line 4: its scope holds a user",
        "4 │ scope = ...",
        "scope = ",
    ),
    (
        "scope = 'gopher://hunter2/'\n",
        "line 3: its scope begins with \"gopher\"",
        "3 │ scope = ...",
        "scope = ",
    ),
    ("scope = '/hunter2'\n", "line 3: its scope is no URL", "3 │ scope = ...", "scope = "),
    (
        "scope = 'https://h'\npassword = 'hunter2'\n",
        "line 4: it has `password` and no `user`",
        "4 │ password = ...",
        "user = ",
    ),
    (
        "scope = 'https://h'\ntoken = 'hunter2'\ntoken_file = 'f'\n",
        "line 5: it has `token` and",
        "5 │ token_file = ...",
        "keep one",
    ),
    (
        "scope = 'https://h'\ntoken = \"hunter2\\n\"\n",
        "line 4: its token cannot be sent",
        "4 │ token = ...",
        "printable",
    ),
    (
        "scope = 'https://h'\nheaders = { Range = 'hunter2' }\n",
        "line 4: the header field \"Range\"",
        "4 │ headers = ...",
        "X-Api-Key",
    ),
    (
        "scope = 'https://h'\n[[credential]]\nscope = 'https://H:443/'\n",
        "line 5: this scope is that of line 3",
        "5 │ scope = ...",
        "one entry",
    ),
    ("[[credentials]]\n", "line 3: unknown key `credentials`", "[credentials", "[[credential]]"),
];

#[test]
fn what_is_not_understood_is_named_by_its_line_without_values() {
    let head = "# mine\n[[credential]]\n";
    let room = Room::new();
    for (body, expected, sketch, hint) in MISTAKES {
        let error = room.load(&format!("{head}{body}")).expect_err(body);
        assert!(error.cause.starts_with(expected), "{body}: {}", error.cause);
        let shown = format!("{error}\n{}", error.hint);
        assert!(!shown.contains("hunter2") && !shown.contains("77123"), "{shown}");
        assert!(shown.contains(sketch) && shown.contains("╰── here"), "{shown}");
        assert!(error.hint.contains(hint), "{shown}");
    }
}

#[test]
fn what_changes_is_read_again_unless_it_makes_no_sense() {
    let room = Room::new();
    let text = |token: &str| format!("[[credential]]\nscope = 'https://h'\ntoken = '{token}'\n");
    let credentials = room.load(&text("one")).unwrap();
    let now = || credentials.lookup("https://h/x");
    let token = || now().and_then(|found| found.bearer().unwrap());
    assert_eq!(token(), Some(Secret::new("one")));
    room.write("credentials.toml", &text("two"), 0o600);
    assert_eq!(token(), Some(Secret::new("two")));
    room.write("credentials.toml", "[[credential", 0o600);
    assert_eq!(token(), Some(Secret::new("two")));
    room.write("credentials.toml", &text("three"), 0o644);
    assert_eq!(token(), Some(Secret::new("two")), "others can read it now");
    room.write(
        "credentials.toml",
        "[[credential]]\nscope = 'https://h'\ntoken_file = 't'\n",
        0o600,
    );
    now().unwrap().bearer().expect_err("no token there");
    room.write("t", "four\n", 0o644);
    assert_eq!(token(), Some(Secret::new("four")));
    room.write("t", "five\n", 0o644);
    assert_eq!(token(), Some(Secret::new("five")));
}
