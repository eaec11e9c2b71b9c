//! Domains of clients' own: `domain` of a service, which `domains` of the server allows.

use crate::common::api;
use crate::common::certs;
use crate::common::crowd::Crowd;
use crate::common::curl::{curl, url};
use crate::common::filed::Filed;
use crate::common::gt::{client, server, server_of_id1, Gt};
use crate::common::scratch::Scratch;
use crate::common::service::{self, Service};
use crate::common::visitor::{get, Answer};
use std::net::SocketAddr;

fn client_of(id: &str, server: SocketAddr, more: &str) -> Gt {
    let secret = id.replace("id", "secret");
    let mut client = client(&format!(
        "-remote tcp://{server} -id {id} -secret {secret} -reconnectDelay 10ms {more}"
    ));
    client.wait_for_tunnel();
    client
}

fn text(addr: SocketAddr, host: &str) -> String {
    get(addr, host, "/").text()
}

fn http(name: &'static str) -> Service {
    service::http(0, name)
}

#[test]
fn the_narrowest_domain_of_a_host_wins_then_the_prefix_and_then_the_catch_all() {
    let names = ["exact", "narrow", "wide", "prefix", "rest"];
    let services = names.map(http);
    let options = [
        "-domain shop.example.com",
        "-domain *.a.example.com",
        "-domain *.example.com",
        "-hostPrefix web -domain unused.example.org",
        "-domain *",
    ];
    let mut server = server_of_id1("-hostNumber 1 -domains *.example.com -domains *");
    let addr = server.addr();
    let locals: Vec<_> = services
        .iter()
        .zip(options)
        .map(|(service, options)| format!("-local http://{} {options}", service.addr))
        .collect();
    let _client = client_of("id1", addr, &locals.join(" "));
    for (host, name) in [
        ("shop.example.com", "exact"),
        ("Shop.Example.COM:80", "exact"),
        ("shop.example.com.", "exact"),
        ("b.a.example.com", "narrow"),
        ("c.b.a.example.com", "narrow"),
        ("a.example.com", "wide"),
        ("web.example.com", "wide"),
        ("shop.shop.example.com", "wide"),
        ("example.com", "rest"),
        ("web.example.net", "prefix"),
        ("unused.example.org", "prefix"),
        ("other.example.net", "rest"),
        ("[::1]:80", "rest"),
        // The id is no prefix of a service with domains.
        ("id1.example.net", "rest"),
    ] {
        let expected = format!("{name} / {}", host.to_lowercase());
        assert_eq!(text(addr, host), expected, "{host}");
    }
}

#[test]
fn tls_by_its_server_name_has_the_same_domains() {
    let certs = certs::make();
    let nginx = crate::common::nginx::start(Some(&certs));
    let mut server = server_of_id1("-sniAddr 127.0.0.1:0 -domains *.example.com");
    let addr = server.addr();
    let sni = server.sni_addr();
    let options = format!("-local https://{} -domain *.shop.example.com", nginx.https);
    let _client = client_of("id1", addr, &options);
    let code = |name: &str| {
        let page = url("https", name, sni, "/");
        curl(&format!("-k -o /dev/null -w %{{http_code}} {page}")).code
    };
    assert_eq!(code("a.shop.example.com"), 0);
    // A TLS alert.
    assert_eq!(code("shop.example.com"), 35);
    assert_eq!(get(addr, "a.shop.example.com", "/").status, 404);
}

#[test]
fn a_domain_that_is_not_allowed_or_that_another_client_has_is_refused() {
    let service = http("web");
    let scratch = Scratch::new();
    let users = "id1: {secret: secret1, domains: [shop.example.com, '*.one.example.com']}\n\
                 id2: {secret: secret2}\nid3: {secret: secret3, domains: ['*']}\n";
    let file = scratch.file("users.yaml", users);
    let line = format!(
        "-addr 127.0.0.1:0 -users {} -domains *.all.example.com",
        file.display()
    );
    let mut server = server(&line);
    let addr = server.addr();
    let local = format!("-local http://{}", service.addr);
    let refusal = |id: &str, domain: &str| {
        let secret = id.replace("id", "secret");
        let mut client = client(&format!(
            "-remote tcp://{addr} -id {id} -secret {secret} -reconnectDelay 1h {local} -domain {domain}"
        ));
        client.wait_for_failure()
    };
    let one = client_of(
        "id1",
        addr,
        &format!("{local} -domain shop.example.com -domain *.a.one.example.com"),
    );
    let _two = client_of("id2", addr, &format!("{local} -domain b.all.example.com"));
    for (id, domain) in [
        // Not those of the server, if it has its own.
        ("id1", "c.all.example.com"),
        ("id1", "one.example.com"),
        ("id2", "shop.example.com"),
        ("id2", "*"),
    ] {
        let why = refusal(id, domain);
        assert!(why.contains("a domain is not allowed"), "{why}");
    }
    for domain in [
        "shop.example.com",
        "*.a.one.example.com",
        "b.all.example.com",
    ] {
        let why = refusal("id3", domain);
        assert!(
            why.contains("choose another hostPrefix or domain, give all members"),
            "{why}"
        );
    }
    assert_eq!(text(addr, "shop.example.com"), "web / shop.example.com");
    drop(one);
}

#[test]
fn over_gt1_a_service_with_a_domain_is_not_published_and_says_so() {
    let (one, other) = (http("one"), http("other"));
    let mut server = server_of_id1("-domains *");
    let addr = server.addr();
    let mut client = client_of(
        "id1",
        addr,
        &format!(
            "-wire 1 -local http://{} -domain shop.example.com -local http://{}",
            one.addr, other.addr
        ),
    );
    let error = client.wait_for("has a domain, but");
    assert!(error.contains(&one.addr.to_string()), "{error}");
    assert!(
        error.contains("speaks GT/1") && error.contains("it is not published"),
        "{error}"
    );
    assert_eq!(get(addr, "shop.example.com", "/").status, 404);
    assert_eq!(text(addr, "id1.example.com"), "other / id1.example.com");
}

#[test]
fn a_reload_changes_domains_and_the_api_lists_them() {
    let service = http("web");
    let mut server = server_of_id1("-apiAddr 127.0.0.1:0 -domains *.example.com");
    let (addr, api) = (server.addr(), server.api_addr());
    let local = service.addr;
    let mut filed = Filed::start(
        "client",
        move |domains: &str| {
            format!(
                "options: {{remote: \"tcp://{addr}\", id: id1, secret: secret1}}\nservices:\n\
             - {{local: \"http://{local}\", domain: {domains}}}\n"
            )
        },
        "[a.example.com]",
    );
    filed.gt.wait_for_tunnel();
    let status = |host: &str| -> u16 {
        let answer: Answer = get(addr, host, "/");
        answer.status
    };
    assert_eq!(status("a.example.com"), 200);
    filed.reload("[b.example.com, '*.c.example.com']");
    filed.gt.wait_for_changed_services();
    assert_eq!(status("b.example.com"), 200);
    assert_eq!(status("d.c.example.com"), 200);
    assert_eq!(
        get(api, "localhost", "/clients")
            .text()
            .matches("\"domains\": [\"*.c.example.com\", \"b.example.com\"]")
            .count(),
        1
    );
    // Its visitors wait for a moment: the client may come back with it.
    assert_eq!(status("a.example.com"), 503);
}

#[test]
fn a_restart_of_the_server_keeps_domains() {
    let service = http("web");
    let mut server = server_of_id1("-domains *.example.com");
    let addr = server.addr();
    let options = format!("-local http://{} -domain *.shop.example.com", service.addr);
    let _client = client_of("id1", addr, &options);
    let crowd = Crowd::start(move || {
        assert_eq!(text(addr, "a.shop.example.com"), "web / a.shop.example.com");
    });
    let new = server.restart();
    crowd.more();
    assert_eq!(server.exit().code(), Some(0));
    crowd.more();
    crowd.end();
    new.signal("TERM");
    new.wait_for_end();
}

#[test]
fn an_auth_api_may_grant_domains() {
    let service = http("web");
    let api = api::start(0, |_| {
        api::judgement(true, &["shop.example.com", "*.a.example.com"])
    });
    let mut server = server(&format!("-addr 127.0.0.1:0 -authAPI http://{}/", api.addr));
    let addr = server.addr();
    let options = format!(
        "-local http://{} -domain shop.example.com -local http://{0} -domain b.example.com \
         -local http://{0} -domain *.a.example.com",
        service.addr
    );
    let _client = client_of("id1", addr, &options);
    let asked = api.request().prefixes();
    assert_eq!(
        asked,
        ["*.a.example.com", "b.example.com", "shop.example.com"]
    );
    assert_eq!(text(addr, "shop.example.com"), "web / shop.example.com");
    assert_eq!(text(addr, "c.a.example.com"), "web / c.a.example.com");
    assert_eq!(get(addr, "b.example.com", "/").status, 404);
}

#[test]
fn what_an_auth_api_has_granted_outlives_a_reload_and_grows_with_the_client() {
    let service = http("web");
    let granted = ["shop.example.com", "new.example.com"];
    let api = api::start(0, move |_| api::judgement(true, &granted));
    let url = format!("http://{}/", api.addr);
    let text_of = move |options: &str| {
        format!("type: server\noptions: {{addr: \"127.0.0.1:0\", authAPI: \"{url}\"{options}}}\n")
    };
    let mut server = Filed::start("server", text_of, "");
    let addr = server.gt.addr();
    let local = service.addr;
    let services = move |domains: &str| {
        format!(
            "options: {{remote: \"tcp://{addr}\", id: id1, secret: secret1}}\nservices:\n\
             - {{local: \"http://{local}\", domain: [{domains}]}}\n"
        )
    };
    let mut filed = Filed::start("client", services, "shop.example.com");
    filed.gt.wait_for_tunnel();
    server.reload(", hostNumber: 5");
    assert_eq!(text(addr, "shop.example.com"), "web / shop.example.com");
    filed.reload("shop.example.com, new.example.com");
    filed.gt.wait_for_changed_services();
    assert_eq!(text(addr, "new.example.com"), "web / new.example.com");
    assert_eq!(filed.gt.tunnels(), 1, "the tunnel has stayed");
}

#[test]
fn a_domain_that_is_given_up_belongs_to_the_next_wider_one() {
    let service = http("web");
    let mut server = server_of_id1("-domains *.example.com");
    let (addr, local) = (server.addr(), service.addr);
    let services = move |domains: &str| {
        format!(
            "options: {{remote: \"tcp://{addr}\", id: id1, secret: secret1}}\nservices:\n\
             - {{local: \"http://{local}\", domain: [{domains}]}}\n"
        )
    };
    let mut filed = Filed::start("client", services, "shop.example.com, '*.example.com'");
    filed.gt.wait_for_tunnel();
    filed.reload("'*.example.com'");
    filed.gt.wait_for_changed_services();
    assert_eq!(text(addr, "shop.example.com"), "web / shop.example.com");
}

#[test]
fn names_that_only_the_registry_has_lead_nowhere() {
    let (one, other) = (http("one"), http("other"));
    let mut server = server_of_id1("-httpMUXHeader X-Mux -hostNumber 2 -domains *");
    let addr = server.addr();
    let mut client = client(&format!(
        "-remote tcp://{addr} -id id1 -secret secret1 -reconnectDelay 1h \
         -local http://{} -domain shop.example.com",
        one.addr
    ));
    let why = client.wait_for_failure();
    assert!(why.contains("is not allowed"), "{why}");
    drop(client);
    let mut server = server_of_id1("-domains *");
    let addr = server.addr();
    let local = format!("-local http://{} -domain localhost", other.addr);
    let _client = client_of("id1", addr, &local);
    assert_eq!(text(addr, "localhost"), "other / localhost");
    assert_eq!(get(addr, "@localhost", "/").status, 404);
}

#[test]
fn a_client_has_a_bounded_number_of_domains_and_they_take_no_time() {
    let service = http("web");
    let mut server = server_of_id1("-domains *");
    let addr = server.addr();
    let locals = |count: usize| {
        let names = |at: usize| {
            let end = count.min(at + 250);
            let names = (at..end).map(|n| format!("-domain n{n}.example.com"));
            names.collect::<Vec<_>>().join(" ")
        };
        let services = (0..count)
            .step_by(250)
            .map(|at| format!("-local http://{} {}", service.addr, names(at)));
        services.collect::<Vec<_>>().join(" ")
    };
    let many = client_of("id1", addr, &locals(1000));
    assert_eq!(text(addr, "n999.example.com"), "web / n999.example.com");
    drop(many);
    let mut more = client(&format!(
        "-remote tcp://{addr} -id id1 -secret secret1 -reconnectDelay 1h {}",
        locals(1001)
    ));
    more.wait_for_failure();
}
