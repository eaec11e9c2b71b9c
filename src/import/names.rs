//! The names of settings in frp's INI files, and those that they have in its TOML files.

use super::tree::{Node, NodeKind, Place};

/// A section of an INI file.
pub struct Section<'t> {
    /// The name.
    pub name: &'t str,
    /// The line of the name.
    pub line: usize,
    /// The settings, with the key behind a space at the end of their place.
    pub settings: Vec<Node>,
}

/// The section of the settings that are no proxies.
const COMMON: &str = "common";
/// Sections that begin so are plugins of a server.
const PLUGIN: &str = "plugin.";

/// Settings of `[common]` of both programs.
const OF_COMMON: &[(&str, &str)] = &[
    ("admin_addr", "webServer.addr"),
    ("admin_port", "webServer.port"),
    ("admin_pwd", "webServer.password"),
    ("admin_user", "webServer.user"),
    ("allow_ports", "allowPorts"),
    ("assets_dir", "webServer.assetsDir"),
    (
        "authenticate_heartbeats",
        "auth.additionalScopes.heartbeats",
    ),
    (
        "authenticate_new_work_conns",
        "auth.additionalScopes.newWorkConns",
    ),
    ("authentication_method", "auth.method"),
    ("bind_addr", "bindAddr"),
    ("bind_port", "bindPort"),
    ("bind_udp_port", "bindUDPPort"),
    ("connect_server_local_ip", "transport.connectServerLocalIP"),
    ("custom_404_page", "custom404Page"),
    ("dashboard_addr", "webServer.addr"),
    ("dashboard_port", "webServer.port"),
    ("dashboard_pwd", "webServer.password"),
    ("dashboard_tls_cert_file", "webServer.tls.certFile"),
    ("dashboard_tls_key_file", "webServer.tls.keyFile"),
    ("dashboard_tls_mode", "webServer.tls.mode"),
    ("dashboard_user", "webServer.user"),
    ("detailed_errors_to_client", "detailedErrorsToClient"),
    ("dial_server_keepalive", "transport.dialServerKeepalive"),
    ("dial_server_timeout", "transport.dialServerTimeout"),
    (
        "disable_custom_tls_first_byte",
        "transport.tls.disableCustomTLSFirstByte",
    ),
    ("disable_log_color", "log.disablePrintColor"),
    ("dns_server", "dnsServer"),
    ("enable_prometheus", "enablePrometheus"),
    ("heartbeat_interval", "transport.heartbeatInterval"),
    ("heartbeat_timeout", "transport.heartbeatTimeout"),
    ("http_proxy", "transport.proxyURL"),
    ("includes", "includes"),
    ("kcp_bind_port", "kcpBindPort"),
    ("log_file", "log.to"),
    ("log_level", "log.level"),
    ("log_max_days", "log.maxDays"),
    ("login_fail_exit", "loginFailExit"),
    ("max_pool_count", "transport.maxPoolCount"),
    ("max_ports_per_client", "maxPortsPerClient"),
    ("nat_hole_stun_server", "natHoleStunServer"),
    ("pool_count", "transport.poolCount"),
    ("pprof_enable", "webServer.pprofEnable"),
    ("protocol", "transport.protocol"),
    ("proxy_bind_addr", "proxyBindAddr"),
    ("quic_bind_port", "quicBindPort"),
    ("server_addr", "serverAddr"),
    ("server_port", "serverPort"),
    ("start", "start"),
    ("subdomain_host", "subDomainHost"),
    ("tcp_keepalive", "transport.tcpKeepalive"),
    ("tcp_mux", "transport.tcpMux"),
    (
        "tcp_mux_keepalive_interval",
        "transport.tcpMuxKeepaliveInterval",
    ),
    ("tcpmux_httpconnect_port", "tcpmuxHTTPConnectPort"),
    ("tcpmux_passthrough", "tcpmuxPassthrough"),
    ("tls_cert_file", "transport.tls.certFile"),
    ("tls_enable", "transport.tls.enable"),
    ("tls_key_file", "transport.tls.keyFile"),
    ("tls_only", "transport.tls.force"),
    ("tls_server_name", "transport.tls.serverName"),
    ("tls_trusted_ca_file", "transport.tls.trustedCaFile"),
    ("token", "auth.token"),
    ("udp_packet_size", "udpPacketSize"),
    ("user", "user"),
    ("user_conn_timeout", "userConnTimeout"),
    ("vhost_http_port", "vhostHTTPPort"),
    ("vhost_http_timeout", "vhostHTTPTimeout"),
    ("vhost_https_port", "vhostHTTPSPort"),
];

/// Settings of proxies and visitors.
const OF_PROXIES: &[(&str, &str)] = &[
    ("allow_users", "allowUsers"),
    ("bandwidth_limit", "transport.bandwidthLimit"),
    ("bandwidth_limit_mode", "transport.bandwidthLimitMode"),
    ("bind_addr", "bindAddr"),
    ("bind_port", "bindPort"),
    ("custom_domains", "customDomains"),
    ("group", "loadBalancer.group"),
    ("group_key", "loadBalancer.groupKey"),
    ("health_check_interval_s", "healthCheck.intervalSeconds"),
    ("health_check_max_failed", "healthCheck.maxFailed"),
    ("health_check_timeout_s", "healthCheck.timeoutSeconds"),
    ("health_check_type", "healthCheck.type"),
    ("health_check_url", "healthCheck.path"),
    ("host_header_rewrite", "hostHeaderRewrite"),
    ("http_pwd", "httpPassword"),
    ("http_user", "httpUser"),
    ("local_ip", "localIP"),
    ("local_port", "localPort"),
    ("locations", "locations"),
    ("multiplexer", "multiplexer"),
    ("plugin", "plugin.type"),
    ("plugin_crt_path", "plugin.crtPath"),
    ("plugin_host_header_rewrite", "plugin.hostHeaderRewrite"),
    ("plugin_http_passwd", "plugin.httpPassword"),
    ("plugin_http_user", "plugin.httpUser"),
    ("plugin_key_path", "plugin.keyPath"),
    ("plugin_local_addr", "plugin.localAddr"),
    ("plugin_local_path", "plugin.localPath"),
    ("plugin_passwd", "plugin.password"),
    ("plugin_strip_prefix", "plugin.stripPrefix"),
    ("plugin_unix_path", "plugin.unixPath"),
    ("plugin_user", "plugin.username"),
    ("proxy_protocol_version", "transport.proxyProtocolVersion"),
    ("remote_port", "remotePort"),
    ("role", "role"),
    ("route_by_http_user", "routeByHTTPUser"),
    ("server_name", "serverName"),
    ("server_user", "serverUser"),
    ("sk", "secretKey"),
    ("subdomain", "subdomain"),
    ("type", "type"),
    ("use_compression", "transport.useCompression"),
    ("use_encryption", "transport.useEncryption"),
];

/// Beginnings of names whose rest is free.
const BEGINNINGS: &[(&str, &str)] = &[
    ("header_", "requestHeaders.set."),
    ("meta_", "metadatas."),
    ("oidc_", "auth.oidc."),
    ("plugin_header_", "plugin.requestHeaders.set."),
    ("quic_", "transport.quic."),
];

/// Settings with several values, which commas separate.
const LISTS: &[&str] = &[
    "allowUsers",
    "customDomains",
    "includes",
    "locations",
    "start",
];

/// Settings that a section of a proxy, a visitor or a plugin has.
const SIGNS: &[&str] = &["type", "plugin", "role", "local_port", "remote_port", "ops"];

/// Whether a section may be one of frp's.
pub fn is_of_frp(section: &Section<'_>) -> bool {
    let mut keys = section.settings.iter().map(written);
    match section.name == COMMON {
        true => keys.any(|key| OF_COMMON.iter().any(|(old, _)| *old == key)),
        false => keys.any(|key| SIGNS.contains(&key.as_str())),
    }
}

/// Returns the key of a setting as the file has it.
fn written(setting: &Node) -> String {
    let place = setting.place().to_string();
    let key = place.rsplit_once(' ').map_or("", |(_, key)| key);
    key.to_owned()
}

/// Adds the sections of an INI file to what will be read as a file in TOML.
pub fn add(root: &mut Node, sections: Vec<Section<'_>>) {
    let (mut proxies, mut visitors, mut plugins) = (Vec::new(), Vec::new(), Vec::new());
    for Section {
        name,
        line,
        settings,
    } in sections
    {
        if name == COMMON {
            for setting in settings {
                put(root, OF_COMMON, setting);
            }
            continue;
        }
        let place = Place::key(None, &format!("[{name}]"), Some(line));
        let named = Node::new(place.clone(), NodeKind::Text(name.to_owned()));
        let mut section = Node::new(place, NodeKind::Map(vec![("name".to_owned(), named)]));
        for setting in settings {
            put(&mut section, OF_PROXIES, setting);
        }
        let is_visitor = section.get("role").and_then(Node::text) == Some("visitor");
        match (name.starts_with(PLUGIN), is_visitor) {
            (true, _) => plugins.push(section),
            (false, true) => visitors.push(section),
            (false, false) => proxies.push(section),
        }
    }
    let lists = [
        ("proxies", proxies),
        ("visitors", visitors),
        ("httpPlugins", plugins),
    ];
    for (key, list) in lists {
        if !list.is_empty() {
            let place = Place::key(None, key, None);
            root.push(key, Node::new(place, NodeKind::List(list)));
        }
    }
}

/// Puts a setting where a file in TOML has it. The last of several of one name counts, as in frp.
fn put(section: &mut Node, names: &[(&str, &str)], mut setting: Node) {
    let written = written(&setting);
    let of_names = names.iter().find(|(old, _)| *old == written);
    let path = match of_names {
        Some((_, new)) => (*new).to_owned(),
        None => {
            let new = |(old, new): &(&str, &str)| {
                let rest = written.strip_prefix(old)?;
                // A dot would be another section.
                Some(format!("{new}{}", rest.replace('.', "_")))
            };
            let known = BEGINNINGS.iter().find_map(new);
            known.unwrap_or_else(|| written.replace('.', "_"))
        }
    };
    if LISTS.contains(&path.as_str()) {
        let text = setting.text().unwrap_or_default().to_owned();
        let texts = text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let element = |text: &str| {
            let kind = NodeKind::Text(text.to_owned());
            Node::new(setting.place().clone(), kind)
        };
        setting.kind = NodeKind::List(texts.map(element).collect());
    }
    if let Some(before) = section.put(&path, setting) {
        section.push(&path, before);
    }
}
