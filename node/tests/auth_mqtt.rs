//! Identity and authorization over MQTT, as clients see it: who is let in, what they may do, and what a change does to those who
//! are connected.

mod support;

use std::{process::Command, time::Duration};

use support::{
    House, Node,
    auth::{audited, done, token, user},
    driver::{Client, LIBRARIES, Library, Over},
    eventually,
    mqtt::{Connect, Raw, Version, publish, subscribe},
};

const BANNED: u8 = 0x8A;
const BAD_PASSWORD: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;

fn connect<'a>(version: Version, id: &'a str, user: &'a str, password: Option<&'a str>) -> Connect<'a> {
    Connect { user: (!user.is_empty()).then_some(user), password, ..Connect::new(version, id) }
}

/// The code of the CONNACK.
#[track_caller]
fn code(node: &Node, connect: &Connect<'_>) -> u8 {
    let mut raw = Raw::open(node.mqtt);
    raw.send(&connect.bytes());
    raw.expect(0x20).body[1]
}

fn d(id: &str) -> Connect<'_> {
    connect(Version::V5, id, id, Some("secret"))
}

/// Two devices, a gateway, a viewer, an operator.
fn house() -> House {
    let house = House::new();
    for name in ["d1", "d2"] {
        user(&house, name, "device", "secret");
    }
    user(&house, "gate", "gateway", "secret");
    user(&house, "eye", "viewer", "secret");
    user(&house, "op", "operator", "secret");
    house
}

#[test]
fn who_proves_nothing_or_the_wrong_thing_is_refused_in_its_own_words() {
    let house = house();
    let (mine, expired) = (token(&house, "d1", "device"), "tg_0123456789abcdef0123456789");
    let node = house.start();
    for (version, [wrong, missing]) in [(Version::V5, [BAD_PASSWORD, NOT_AUTHORIZED]), (Version::V3, [4, 5])] {
        for (who, password, expected) in [
            ("d1", Some("secret"), 0),
            ("d1", Some("Secret"), wrong),
            ("nobody", Some("secret"), wrong),
            ("", None, missing),
            (&mine, None, 0),
            (&mine, Some(""), 0),
            (expired, None, wrong),
        ] {
            assert_eq!(code(&node, &connect(version, "d1", who, password)), expected, "{version:?} {who} {password:?}");
        }
    }
    // A token as the password alone: MQTT 5 only.
    assert_eq!(code(&node, &connect(Version::V5, "d1", "", Some(&mine))), 0);
    let denied = eventually("lines in the audit log", || {
        Some(audited(&house, &["login", "denied"])).filter(|lines| lines.len() >= 8)
    });
    let log = node.log() + &denied.concat() + &audited(&house, &[]).concat();
    for secret in ["Secret", &mine, expired] {
        assert!(!log.contains(secret), "a secret in a log");
    }
    let stored = std::fs::read_to_string(house.data().join("users.jsonl")).unwrap();
    assert!(!stored.contains("\"secret\"") && !stored.contains(&mine), "{stored}");
}

#[test]
fn a_device_has_its_own_topics_and_no_others() {
    let house = house();
    let node = house.start();
    let mut eye = Raw::connect_with(node.mqtt, &connect(Version::V5, "eye-1", "eye", Some("secret")));
    eye.send(&subscribe(Version::V5, 1, "#", 1));
    assert_eq!(eye.expect(0x90).body[3], 1);

    let mut d1 = Raw::connect_with(node.mqtt, &d("d1"));
    for (id, topic, expected) in [
        (1, "devices/d1/metrics", 0),
        (2, "devices/d2/metrics", NOT_AUTHORIZED),
        (3, "devices/d11/metrics", NOT_AUTHORIZED),
        (4, "plant/1", NOT_AUTHORIZED),
        (5, "$SYS/broker/uptime", NOT_AUTHORIZED),
        (6, "devices/d1/log", 0),
        (7, "v1/devices/me/telemetry", 0),
    ] {
        d1.send(&publish(Version::V5, topic, 1, id, &[], b"{\"v\":1}"));
        assert_eq!(d1.expect(0x40).puback(), (id, expected), "{topic}");
    }
    for (id, filter, expected) in [
        (8, "devices/d1/#", 1),
        (9, "v1/devices/me/rpc/request/+", 1),
        (10, "devices/d2/#", NOT_AUTHORIZED),
        (11, "devices/+/state", NOT_AUTHORIZED),
        (12, "#", NOT_AUTHORIZED),
        (13, "$SYS/#", NOT_AUTHORIZED),
        (14, "devices/d1+x", 0x8F),
    ] {
        d1.send(&subscribe(Version::V5, id, filter, 1));
        if expected == 0x8F {
            assert_eq!(d1.expect(0xE0).disconnect_reason(), expected, "{filter}");
        } else {
            let suback = d1.next_of(0x90);
            assert_eq!(suback.body[3..].last(), Some(&expected), "{filter} {suback:?}");
        }
    }
    // 3.1.1 has no word: acknowledged and dropped; the subscription is refused.
    let mut old = Raw::connect_with(node.mqtt, &connect(Version::V3, "d2", "d2", Some("secret")));
    old.send(&publish(Version::V3, "devices/d1/log", 1, 1, &[], b"forged"));
    assert_eq!(old.expect(0x40).puback(), (1, 0));
    old.send(&publish(Version::V3, "devices/d1/log", 0, 0, &[], b"forged"));
    old.send(&subscribe(Version::V3, 2, "devices/d1/#", 0));
    assert_eq!(old.expect(0x90).body[2], 0x80);

    // What the viewer saw is what was allowed.
    old.send(&publish(Version::V3, "devices/d2/end", 1, 3, &[], b"end"));
    let mut topics = Vec::new();
    loop {
        let packet = eye.next().expect("the end comes");
        if packet.first & 0xF0 != 0x30 {
            continue;
        }
        let length = usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
        topics.push(String::from_utf8(packet.body[2..2 + length].to_vec()).unwrap());
        assert!(!packet.body.ends_with(b"forged"));
        if packet.body.ends_with(b"end") {
            break;
        }
    }
    assert!(topics.iter().any(|topic| topic == "devices/d1/log"), "{topics:?}");
    assert!(
        topics.iter().all(|topic| topic.starts_with("devices/d1/") || topic.starts_with("devices/d2/")),
        "{topics:?}"
    );
    node.as_user("eye", "secret");
    assert_eq!(node.metric("tidegate_auth_denied_total{action=\"publish\"}"), 6.0);
    assert_eq!(node.metric("tidegate_auth_denied_total{action=\"subscribe\"}"), 5.0);
}

#[test]
fn the_device_of_a_token_is_the_credentials_and_a_takeover_needs_the_same_user() {
    let house = house();
    done(&house, &["user", "add", "pump", "--device", "pump-7"], "secret");
    let node = house.start();
    // The client id says nothing of the device.
    let mut pump = Raw::connect_with(node.mqtt, &connect(Version::V5, "any-client", "pump", Some("secret")));
    pump.send(&publish(Version::V5, "v1/devices/me/telemetry", 1, 1, &[], b"{\"v\":7}"));
    assert_eq!(pump.expect(0x40).puback(), (1, 0));
    assert_eq!(node.as_user("op", "secret").get("/devices/pump-7").json()["state"]["v"], 7);

    // Nobody else may have a client id that is taken, or that is the name or device of another.
    for taken in ["any-client", "pump", "pump-7", "d1"] {
        assert_eq!(code(&node, &connect(Version::V5, taken, "d2", Some("secret"))), NOT_AUTHORIZED, "{taken}");
    }
    pump.send(&[0xC0, 0]);
    assert_eq!(pump.next().expect("it is still there").first, 0xD0);
    let again = Raw::connect_with(node.mqtt, &connect(Version::V5, "any-client", "pump", Some("secret")));
    assert_eq!(pump.expect(0xE0).disconnect_reason(), 0x8E);
    drop(again);
    // A will on somebody else's topic is no way around.
    let will = Connect { will: Some(("devices/d1/x", b"x", 0, b"")), ..d("d2") };
    assert_eq!(code(&node, &will), NOT_AUTHORIZED);
}

#[test]
fn what_a_device_says_of_itself_reaches_no_other_device() {
    let house = house();
    let node = house.start();
    let mut d2 = Raw::connect_with(node.mqtt, &d("d2"));
    d2.send(&subscribe(Version::V5, 1, "v1/devices/me/#", 0));
    d2.expect(0x90);
    let mut d1 = Raw::connect_with(node.mqtt, &d("d1"));
    d1.send(&publish(Version::V5, "v1/devices/me/attributes", 1, 1, &[], b"private"));
    assert_eq!(d1.expect(0x40).puback(), (1, 0));
    d2.send(&publish(Version::V5, "devices/d2/x", 1, 9, &[], b""));
    assert_eq!(d2.expect(0x40).puback(), (9, 0), "nothing came before");
}

#[test]
fn a_removed_user_is_gone_at_once_and_a_changed_one_must_come_again() {
    let house = house();
    let (keep, lose) = (token(&house, "t1", "device"), token(&house, "t2", "device"));
    let node = house.start();
    let mut gone = Raw::connect_with(node.mqtt, &d("d1"));
    let mut changed = Raw::connect_with(node.mqtt, &d("d2"));
    let mut stays = Raw::connect_with(node.mqtt, &connect(Version::V5, "t1", &keep, None));
    let mut revoked = Raw::connect_with(node.mqtt, &connect(Version::V5, "t2", &lose, None));

    done(&house, &["user", "remove", "d1"], "");
    assert_eq!(gone.expect(0xE0).disconnect_reason(), NOT_AUTHORIZED);
    assert_eq!(code(&node, &d("d1")), BAD_PASSWORD);
    done(&house, &["user", "passwd", "d2"], "other");
    assert_eq!(changed.expect(0xE0).disconnect_reason(), NOT_AUTHORIZED);
    assert_eq!(code(&node, &d("d2")), BAD_PASSWORD);
    assert_eq!(code(&node, &connect(Version::V5, "d2", "d2", Some("other"))), 0);
    let list: serde_json::Value = serde_json::from_str(&done(&house, &["token", "list", "--json"], "")).unwrap();
    let id = list.as_array().unwrap().iter().find(|line| line["user"] == "t2").unwrap()["token"].as_str().unwrap();
    done(&house, &["token", "revoke", id], "");
    assert_eq!(revoked.expect(0xE0).disconnect_reason(), NOT_AUTHORIZED);
    done(&house, &["user", "disable", "op"], "");
    eventually("the operator is refused", || {
        (code(&node, &connect(Version::V5, "o", "op", Some("secret"))) != 0).then_some(())
    });
    stays.send(&[0xC0, 0]);
    assert_eq!(stays.next().expect("nobody else was disturbed").first, 0xD0);
    eventually("the audit log has it", || (audited(&house, &["revoke", "d1"]).len() == 1).then_some(()));
    assert_eq!(audited(&house, &["user.remove", "d1"]).len(), 1);

    // A file that went bad or away changes nothing.
    let users = house.data().join("users.jsonl");
    let good = std::fs::read(&users).unwrap();
    std::fs::write(&users, "{\"user\":").unwrap();
    node.logged(&["users.jsonl:1:8"]);
    std::fs::remove_file(&users).unwrap();
    node.logged(&["users.jsonl: is gone"]);
    assert_eq!(code(&node, &connect(Version::V5, "x", "", None)), NOT_AUTHORIZED);
    std::fs::write(&users, good).unwrap();
    stays.send(&[0xC0, 0]);
    assert_eq!(stays.next().expect("it stayed").first, 0xD0);
}

#[test]
fn what_waits_for_a_removed_user_is_gone_too() {
    let house = house();
    let node = house.start();
    let stored = |id| Connect { clean: false, properties: &[0x11, 0, 0, 0x0E, 0x10], ..d(id) };
    for id in ["d1", "d2"] {
        let mut device = Raw::connect_with(node.mqtt, &stored(id));
        device.send(&subscribe(Version::V5, 1, &format!("devices/{id}/#"), 1));
        assert_eq!(device.expect(0x90).body[3], 1);
        device.send(&[0xE0, 0]);
        assert_eq!(device.next(), None);
    }
    let mut op = Raw::connect_with(node.mqtt, &connect(Version::V5, "op", "op", Some("secret")));
    for (packet, id) in [(1, "d1"), (2, "d2")] {
        op.send(&publish(Version::V5, &format!("devices/{id}/x"), 1, packet, &[], b"for the old one"));
        assert_eq!(op.expect(0x40).puback(), (packet, 0));
    }
    // Somebody of the same name comes later: what waited was not for them.
    done(&house, &["user", "remove", "d1"], "");
    let read_again = || node.log().matches("read the users and rules again").count();
    eventually("the removal is known", || (read_again() > 0).then_some(()));
    let before = read_again();
    user(&house, "d1", "device", "another");
    // Not by trying: ten wrong passwords are banned.
    eventually("the new user is known", || (read_again() > before).then_some(()));
    let again = Connect { password: Some("another"), ..stored("d1") };
    assert_eq!(code(&node, &again), 0);
    let present = |connect: &Connect<'_>| {
        let mut raw = Raw::open(node.mqtt);
        raw.send(&connect.bytes());
        raw.expect(0x20).body[0]
    };
    assert_eq!(present(&stored("d2")), 1, "the other's is still there");
    let mut d1 = Raw::open(node.mqtt);
    d1.send(&again.bytes());
    assert_eq!(d1.expect(0x20).body[1], 0);
    d1.send(&[0xC0, 0]);
    assert_eq!(d1.next().expect("a PINGRESP").first, 0xD0, "nothing came before it");
}

#[test]
fn the_first_user_closes_an_open_node() {
    let house = House::new();
    let node = house.start();
    let mut stranger = Raw::connect(node.mqtt, Version::V5, "stranger");
    user(&house, "d1", "device", "secret");
    assert_eq!(stranger.expect(0xE0).disconnect_reason(), NOT_AUTHORIZED);
    assert_eq!(code(&node, &Connect::new(Version::V5, "stranger")), NOT_AUTHORIZED);
    assert_eq!(code(&node, &d("d1")), 0);
}

#[test]
fn guessing_and_flapping_are_banned_for_a_while() {
    let house = house()
        .variable("TIDEGATE_AUTH__BANS__WRONG_PASSWORDS", "3")
        .variable("TIDEGATE_AUTH__BANS__WRONG_PASSWORDS_BAN_MS", "2000")
        .variable("TIDEGATE_AUTH__BANS__DISCONNECTS", "3");
    let node = house.start();
    for _ in 0..3 {
        let connection = Raw::connect_with(node.mqtt, &d("d2"));
        drop(connection);
    }
    eventually("the client is banned", || (code(&node, &d("d2")) == BANNED).then_some(()));
    assert_eq!(code(&node, &d("d1")), 0, "others are not");

    for _ in 0..3 {
        assert_eq!(code(&node, &connect(Version::V5, "d1", "d1", Some("guess"))), BAD_PASSWORD);
    }
    assert_eq!(code(&node, &d("d1")), BANNED, "the right password does not help");
    assert_eq!(code(&node, &connect(Version::V3, "d1", "d1", Some("secret"))), 5);
    let response = node.get("/devices");
    response.problem(429, "banned");
    assert!(response.header("retry-after").is_some());
    eventually("the ban is over", || (code(&node, &d("d1")) == 0).then_some(()));
    assert_eq!(node.as_user("eye", "secret").metric("tidegate_auth_bans_total{of=\"address\"}"), 1.0);
}

#[test]
fn mosquittos_files_are_taken_as_they_are() {
    let house = House::new();
    std::fs::create_dir_all(house.data()).unwrap();
    let (passwords, rules) = (house.data().join("passwd"), house.data().join("acl"));
    for (form, name) in [("sha512-pbkdf2", "alice"), ("sha512", "bob")] {
        let mut command = Command::new("mosquitto_passwd");
        command.args(["-H", form, "-b"]).args((name == "alice").then_some("-c")).arg(&passwords).args([name, "secret"]);
        assert!(command.status().expect("mosquitto_passwd (package mosquitto)").success());
    }
    std::fs::write(&rules, "user alice\ntopic readwrite plant/#\ntopic deny plant/secret\npattern read all/%u/#\n")
        .unwrap();
    let said = done(&house, &["user", "import", passwords.to_str().unwrap()], "");
    assert!(said.contains("added 2 users") && said.contains("1 of them have the weak form"), "{said}");
    let house = house.flags(&["--acl-file", rules.to_str().unwrap()]);
    let node = house.start();
    let mut bob = Raw::connect_with(node.mqtt, &connect(Version::V5, "bob", "bob", Some("secret")));
    let mut alice = Raw::connect_with(node.mqtt, &connect(Version::V5, "alice", "alice", Some("secret")));
    assert_eq!(code(&node, &connect(Version::V5, "bob", "bob", Some("wrong"))), BAD_PASSWORD);
    for (id, topic, expected) in
        [(1, "plant/1", 0), (2, "plant/secret", NOT_AUTHORIZED), (3, "all/alice/x", NOT_AUTHORIZED)]
    {
        alice.send(&publish(Version::V5, topic, 1, id, &[], b"x"));
        assert_eq!(alice.expect(0x40).puback(), (id, expected), "{topic}");
    }
    bob.send(&publish(Version::V5, "plant/1", 1, 1, &[], b"x"));
    assert_eq!(bob.expect(0x40).puback(), (1, NOT_AUTHORIZED));

    // A subscription that holds more than may be read gets what may be read, also after the rules changed.
    let mut reader = Raw::connect_with(node.mqtt, &connect(Version::V5, "alice-2", "alice", Some("secret")));
    for (id, filter, expected) in [(1, "#", 0), (2, "other/#", NOT_AUTHORIZED), (3, "plant/secret", NOT_AUTHORIZED)] {
        reader.send(&subscribe(Version::V5, id, filter, 0));
        assert_eq!(reader.expect(0x90).body[3..].last(), Some(&expected), "{filter}");
    }
    bob.send(&publish(Version::V5, "devices/bob/x", 1, 2, &[], b"not for alice"));
    assert_eq!(bob.expect(0x40).puback(), (2, 0));
    alice.send(&publish(Version::V5, "plant/1", 1, 9, &[], b"for alice"));
    assert!(reader.expect(0x30).body.ends_with(b"for alice"));
    std::fs::write(&rules, "user bob\ntopic write plant/2\n").unwrap();
    node.logged(&["read the users and rules again"]);
    bob.send(&publish(Version::V5, "plant/2", 1, 3, &[], b"not any more"));
    assert_eq!(bob.next_of(0x40).puback(), (3, 0));
    reader.send(&[0xC0, 0]);
    assert_eq!(reader.next().expect("a PINGRESP").first, 0xD0, "nothing came before it");
}

#[test]
fn real_clients_log_in() {
    let house = house();
    let mine = token(&house, "d1", "device");
    let node = house.start();
    let (host, port) = (node.mqtt.ip().to_string(), node.mqtt.port().to_string());
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-h", &host, "-p", &port]).args(arguments);
        command.output().expect("mosquitto's clients are installed")
    };
    let reading = "{\"temperature\":21.5}";
    for (version, credential) in [("mqttv5", &["-u", "d1", "-P", "secret"][..]), ("mqttv311", &["-u", &mine][..])] {
        let mut arguments = vec!["-V", version, "-i", "d1", "-q", "1", "-t", "devices/d1/metrics", "-m", reading];
        arguments.extend(credential);
        let output = run("mosquitto_pub", &arguments);
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let refused = run("mosquitto_pub", &["-V", "mqttv5", "-u", "d1", "-P", "wrong", "-t", "x", "-m", "x"]);
    assert!(!refused.status.success(), "{refused:?}");
    let refused = run("mosquitto_sub", &["-V", "mqttv5", "-u", "d1", "-P", "secret", "-t", "devices/d2/#", "-W", "5"]);
    let words = String::from_utf8_lossy(&refused.stderr).to_lowercase();
    assert!(words.contains("denied") || words.contains("not authorized"), "{refused:?}");
    assert_eq!(node.as_user("op", "secret").get("/devices/d1").json()["state"]["temperature"], 21.5);
}

/// Each library: refused with a wrong password, told at its own end what it may not, and seen at the other end where it may.
#[test]
fn libraries_log_in_and_keep_to_their_topics() {
    let house = house();
    let node = house.start();
    for (library, version) in LIBRARIES {
        let over = |user, password| Over { login: Some((user, password)), ..Over::default() };
        let wrong = Client::refused_over(library, node.mqtt, version, "d1", over("d1", "wrong"));
        // paho says it in MQTT 5's words whatever the version.
        let expected = if version == Version::V5 || library == Library::Paho { BAD_PASSWORD } else { 4 };
        assert_eq!(wrong, Some(u64::from(expected)), "{library:?} {version:?}");

        let connect = |user| Client::connect_over(library, node.mqtt, version, user, None, over(user, "secret"));
        let (mut d1, mut operator) = (connect("d1"), connect("op"));
        assert_eq!(operator.subscribe("devices/#", 1), 1);
        let denied = if version == Version::V5 { u64::from(NOT_AUTHORIZED) } else { 0x80 };
        assert_eq!(d1.subscribe("devices/d2/#", 1), denied, "{library:?} {version:?}");
        assert_eq!(d1.subscribe("devices/d1/log/#", 1), 1);
        // 3.1.1 has no word for it: acknowledged and dropped.
        let told = if version == Version::V5 { denied } else { 0 };
        assert_eq!(d1.publish("devices/d2/log/1", "forged"), told, "{library:?} {version:?}");
        assert_eq!(d1.publish("devices/d1/log/1", "mine"), 0);
        d1.expect_message("devices/d1/log/1", "mine", 1);
        operator.expect_message("devices/d1/log/1", "mine", 1);
        assert!(d1.is_quiet() && operator.is_quiet(), "{library:?} {version:?}");
    }
}

#[test]
fn a_storm_of_reconnects_costs_no_hashes() {
    let house = house().variable("TIDEGATE_AUTH__BANS__DISCONNECTS", "0");
    let node = house.start();
    assert_eq!(code(&node, &d("d1")), 0);
    // A hash takes tens of milliseconds: 500 of them would take more than this.
    let start = std::time::Instant::now();
    (0..500).for_each(|_| assert_eq!(code(&node, &d("d1")), 0));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    println!("500 reconnects with a password that was verified before: {took:?}");
}
