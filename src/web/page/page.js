// The page by which a person runs gt: a view for each kind of thing, all of them made of what the API says.
// Plain script, so that browsers of some years ago run it. docs/web.md describes the page, docs/api.md the API.
(function () {
"use strict";

// ---- Words -------------------------------------------------------------------------------------------------

var zh = {
  "Overview": "概览", "Certificates": "证书", "Sort by": "排序", "Names": "名称", "Ports": "端口", "Ends": "到期",
  "valid": "有效", "expired": "已过期", "missing": "尚无", "in {0}": "{0} 后", "Failed logins of clients": "客户端登录失败",
  "Failed logins at this page": "本页面登录失败", "Names of clients": "客户端的域名", "No name has a certificate of an authority (acmeDomain).": "没有由证书机构签发证书的域名（acmeDomain）。",
 "Clients": "客户端", "Users": "用户", "Lockouts": "锁定", "Services": "服务", "Bans": "封禁",
  "Configuration": "配置", "Log": "日志", "Sign in": "登录", "Sign out": "退出", "Name": "名称", "Password": "密码",
  "Server": "服务端", "Client": "客户端", "Tunnels": "隧道", "Visitors": "访客", "Streams": "连接数", "Uptime": "运行时间",
  "Version": "版本", "Process": "进程", "Up": "上行", "Down": "下行", "The last hour": "最近一小时",
  "up": "上行", "down": "下行", "Reload": "重新加载", "Restart": "重启", "Reloaded.": "已重新加载。",
  "Restart gt? Connections go on.": "要重启 gt 吗？现有连接会继续。", "Restarting…": "正在重启…",
  "gt has restarted.": "gt 已重启。", "gt has not restarted: ": "gt 没有重启：", "Listens on": "监听",
  "Key": "密钥指纹", "Certificate": "证书", "made by gt": "由 gt 生成", "none": "无", "Search": "搜索",
  "Search: id, address, name or port": "搜索：标识、地址、名称或端口", "Id": "标识", "Address": "地址",
  "Since": "连接时间", "RTT": "往返时间", "Way": "传输", "Names and ports": "名称和端口", "Rate": "速率",
  "Traffic": "流量", "Previous": "上一页", "Next": "下一页", "No client is connected.": "没有已连接的客户端。",
  "Nothing is found.": "没有找到。", "{0} of {1} clients": "{1} 个客户端中的 {0} 个", "Limits": "限制",
  "Speed": "速度", "TCP ports": "TCP 端口", "UDP ports": "UDP 端口", "Host prefixes": "主机前缀", "Domains": "域名",
  "no limit": "不限", "Service": "服务", "Visitor": "访客", "Cut": "断开", "The visitor is cut.": "已断开该访客。",
  "No visitor is connected.": "没有已连接的访客。", "and {0} more": "还有 {0} 个",
  "Add a user": "添加用户", "Add": "添加", "Secret": "密码串", "made by gt if empty": "留空则由 gt 生成",
  "Disable": "停用", "Enable": "启用", "disabled": "已停用", "New secret": "更换密码串", "Remove": "删除",
  "Remove the user {0}?": "删除用户 {0}？", "Make a new secret for {0}? The old one ends at once.":
    "为 {0} 生成新的密码串？旧的立即失效。", "The secret of {0}, shown once:": "{0} 的密码串（仅显示一次）：",
  "has a secret": "有密码串", "no secret": "无密码串", "State": "状态", "Change": "修改", "Save": "保存", "Cancel": "取消",
  "There is no user in the files.": "配置文件中没有用户。", "Speed limit in bytes per second": "限速（字节/秒）",
  "Maximum number of tunnels": "隧道数上限", "Maximum number of host prefixes": "主机前缀数上限",
  "TCP ports, like 6000-6010": "TCP 端口，如 6000-6010", "Public keys, one in a line": "公钥，每行一个",
  "empty: as for all": "留空则用全局设置", "Address that is locked out": "被锁定的地址", "Failures": "失败次数",
  "Left": "剩余", "Lift": "解除", "Lifted.": "已解除。", "No address is locked out.": "没有被锁定的地址。",
  "No address is banned.": "没有被封禁的地址。", "Connected to {0} by {1} for {2}.": "已通过 {1} 连接到 {0}，持续 {2}。",
  "Not connected to {0}.": "未连接到 {0}。", "{0} services are published.": "已发布 {0} 个服务。",
  "One service is published.": "已发布 1 个服务。", "No service is published.": "没有发布服务。",
  "{0} clients are connected.": "已连接 {0} 个客户端。", "One client is connected.": "已连接 1 个客户端。",
  "Published at": "发布地址", "Local": "本地", "QR code": "二维码", "Test": "测试", "{0} answers.": "{0} 有应答。",
  "Add a service": "添加服务", "Local address": "本地地址", "Published by": "发布方式", "host prefix": "主机前缀",
  "domain": "域名", "TCP port": "TCP 端口", "UDP port": "UDP 端口", "Value": "值", "Remove this service?": "删除该服务？",
  "There is no service yet.": "还没有服务。", "Services of flags or of options: change them there.":
    "由命令行或 options 定义的服务请在原处修改。", "Peers": "对等连接", "Loss": "丢包", "Channels": "通道", "connected": "已连接",
  "connecting": "正在连接", "over": "已结束", "works": "正常", "is down": "故障", "Check": "检查", "Load again": "重新载入",
  "The configuration is right.": "配置正确。", "Saved and reloaded; the former file has the suffix .bak.":
    "已保存并重新加载；原文件保留为 .bak。", "Saved.": "已保存。", "Saved, but not reloaded: ": "已保存，但未重新加载：",
  "Secrets are hidden. A hidden value stays as it is; write over it to change it.":
    "密码串已隐藏。隐藏的值保持不变；直接覆盖即可修改。", "Line {0}": "第 {0} 行", "File": "文件",
  "Follow": "跟随", "Level": "级别", "all": "全部", "warnings and errors": "警告和错误",
  "The link has been followed.": "已使用链接登录。", "gt does not answer.": "gt 没有应答。", "Back": "返回",
  "Warning: ": "警告：", "server of flags": "命令行配置", "Loading…": "正在载入…", "Copy": "复制", "Copied.": "已复制。",
  "just now": "刚刚", "Done.": "完成。", "Skip to the content": "跳到内容", "Pages": "页面",
  "gt runs without a file; flags cannot be changed here.": "gt 没有使用配置文件运行；命令行参数不能在此修改。"
};
var isChinese = /^zh/i.test(navigator.language || "");
document.documentElement.lang = isChinese ? "zh-CN" : "en";

/// Returns what an object has itself under a name: texts from elsewhere may be names like "constructor".
function own(object, name) {
  return Object.prototype.hasOwnProperty.call(object, name) ? object[name] : undefined;
}

/// Returns a list of what may be one thing, or nothing.
function list_(it) { return it === null || it === undefined || it === "" ? [] : [].concat(it); }

function t(text) {
  var args = [].slice.call(arguments, 1);
  var said = isChinese && own(zh, text) || text;
  return said.replace(/\{(\d)\}/g, function (_, n) { return args[n]; });
}

// ---- Small things ------------------------------------------------------------------------------------------

var $ = function (id) { return document.getElementById(id); };

function h(tag, attributes) {
  var isSvg = /^(svg|path|title)$/.test(tag);
  var it = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  Object.keys(attributes || {}).forEach(function (name) {
    var value = attributes[name];
    if (value === null || value === undefined || value === false) return;
    if (name.slice(0, 2) === "on") it.addEventListener(name.slice(2), value);
    else if (name === "value") it.value = value;
    else it.setAttribute(name, value === true ? "" : value);
  });
  for (var i = 2; i < arguments.length; i++) add(it, arguments[i]);
  return it;
}

function add(to, child) {
  if (Array.isArray(child)) child.forEach(function (one) { add(to, one); });
  else if (child !== null && child !== undefined && child !== false)
    to.appendChild(child.nodeType ? child : document.createTextNode(String(child)));
}

function clear(it) { while (it.firstChild) it.removeChild(it.firstChild); return it; }

function bytes(n) {
  var units = ["B", "KB", "MB", "GB", "TB", "PB"], i = 0;
  while (n >= 1000 && i < 5) { n /= 1000; i++; }
  return (i && n < 100 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
}

function duration(seconds) {
  var s = Math.max(0, Math.round(seconds));
  var units = isChinese ? ["天", "小时", "分", "秒"] : [" d", " h", " min", " s"];
  if (s < 60) return s + units[3];
  if (s < 3600) return Math.floor(s / 60) + units[2];
  if (s < 86400) return Math.floor(s / 3600) + units[1] + " " + Math.floor(s % 3600 / 60) + units[2];
  return Math.floor(s / 86400) + units[0] + " " + Math.floor(s % 86400 / 3600) + units[1];
}

function ago(time) { return duration(Date.now() / 1000 - time); }

function millis(ms) { return ms === null || ms === undefined ? "" : (ms < 10 ? ms.toFixed(1) : Math.round(ms)) + " ms"; }

/// Returns the lost packets of a tunnel or peer; nothing where they are not known, as with TCP.
function lossOf(it) { return it.lossPerMille === null || it.lossPerMille === undefined ? "" : it.lossPerMille / 10 + " %"; }

var noticeTimer;
function notice(text) {
  $("notice").textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(function () { $("notice").textContent = ""; }, 7000);
}

function sentence(it) { return it.error || String(it.message || it); }

// ---- The API -----------------------------------------------------------------------------------------------

// The session needs this token besides its cookie, which the browser sends to all ports of the host. It lasts as long
// as the tab.
var token = null;
try { token = sessionStorage.getItem("gt"); } catch (_) {}

function keep(text) {
  token = text;
  try { if (text) sessionStorage.setItem("gt", text); else sessionStorage.removeItem("gt"); } catch (_) {}
}

function call(method, path, body, headers) {
  var options = { method: method, headers: headers || {}, credentials: "same-origin", cache: "no-store" };
  if (token) options.headers["X-CSRF-Token"] = token;
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  return fetch("/api/" + path, options).then(function (answer) {
    return answer.json().catch(function () { return {}; }).then(function (json) {
      if (answer.ok) return json;
      if (answer.status === 401 && path !== "login") signedOut();
      json.error = json.error || answer.status + " " + answer.statusText;
      json.status = answer.status;
      throw json;
    });
  }, function () { throw { error: t("gt does not answer."), status: 0 }; });
}

/// Runs an action of a button, which is disabled meanwhile. A failure is shown here unless the caller shows it.
function act(event, action, done, isTold) {
  var button = event && event.currentTarget;
  if (button && button.tagName !== "BUTTON") button = event.submitter || button.querySelector("button");
  if (button) button.disabled = true;
  return action().then(function (answer) {
    if (done) notice(done);
    if (answer && answer.reloadError) notice(t("Saved, but not reloaded: ") + answer.reloadError);
    return answer;
  }, function (e) { if (!isTold) notice(sentence(e)); throw e; }).then(function (answer) {
    if (button) button.disabled = false;
    return answer;
  }, function (e) {
    if (button) button.disabled = false;
    throw e;
  });
}

var quiet = function () {};

// ---- Drawings ----------------------------------------------------------------------------------------------

/// Draws values from old to new, in equal steps or at places from 0 to 1; all lines of a drawing have one scale.
function line(values, most, width, height, places) {
  return values.map(function (value, i) {
    var place = places ? places[i] : i / Math.max(1, values.length - 1);
    return (i ? "L" : "M") + (place * width).toFixed(1) + " " + (height - 1 - value / (most || 1) * (height - 2)).toFixed(1);
  }).join("");
}

function spark(values, label) {
  var most = Math.max.apply(null, values.concat(1));
  return h("svg", { "class": "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", role: "img", "aria-label": label },
    values.length > 1 && h("path", { d: line(values, most, 100, 24) }));
}

function chart(points) {
  // Seldom points are taken while nobody looks.
  var up = [], down = [], places = [], first = (points[1] || {}).time, last = (points[points.length - 1] || {}).time;
  for (var i = 1; i < points.length; i++) {
    var seconds = Math.max(1, points[i].time - points[i - 1].time);
    up.push(Math.max(0, points[i].bytesUp - points[i - 1].bytesUp) / seconds);
    down.push(Math.max(0, points[i].bytesDown - points[i - 1].bytesDown) / seconds);
    places.push((points[i].time - first) / Math.max(1, last - first));
  }
  var most = Math.max.apply(null, up.concat(down, 1));
  var text = "↑ " + t("up") + " " + bytes(up[up.length - 1] || 0) + "/s, ↓ " + t("down") + " " +
    bytes(down[down.length - 1] || 0) + "/s, max. " + bytes(up.length ? most : 0) + "/s";
  return [h("svg", { "class": "chart", viewBox: "0 0 600 120", preserveAspectRatio: "none", role: "img", "aria-label": text },
    up.length > 1 && [h("path", { d: line(up, most, 600, 120, places) }), h("path", { "class": "two", d: line(down, most, 600, 120, places) })]),
    h("p", { "class": "dim" }, text)];
}

/// Returns the modules of a QR code (ISO/IEC 18004) of version 1 to 5, level L, mask 0; null if the text is too long.
function qrCode(text) {
  var data = [].slice.call(new TextEncoder().encode(text)), version = 0;
  while (version < 5 && data.length > [17, 32, 53, 78, 106][version]) version++;
  if (version === 5) return null;
  var room = [19, 34, 55, 80, 108][version], check = [7, 10, 15, 20, 26][version], size = 21 + 4 * version;
  var words = [0x40 | data.length >> 4], carry = data.length & 15;
  data.forEach(function (byte) { words.push(carry << 4 | byte >> 4); carry = byte & 15; });
  words.push(carry << 4);
  for (var pad = 0xEC; words.length < room; pad ^= 0xFD) words.push(pad);
  function times(a, b) {
    for (var product = 0, i = 7; i >= 0; i--) product = product << 1 ^ (product >> 7) * 0x11D ^ (b >> i & 1) * a;
    return product;
  }
  var generator = [1], root = 1, i, j;
  for (i = 0; i < check; i++) {
    generator.push(0);
    for (j = generator.length - 1; j > 0; j--) generator[j] ^= times(generator[j - 1], root);
    root = times(root, 2);
  }
  var rest = words.concat(generator.slice(1).map(function () { return 0; }));
  for (i = 0; i < room; i++) {
    var factor = rest[i];
    for (j = 0; j <= check; j++) rest[i + j] ^= times(generator[j], factor);
  }
  words = words.concat(rest.slice(room));
  var grid = [];
  for (i = 0; i < size; i++) grid.push(new Array(size));
  function finder(row, column) {
    for (var y = -1; y < 8; y++) for (var x = -1; x < 8; x++) {
      var ring = Math.max(Math.abs(x - 3), Math.abs(y - 3));
      if (grid[row + y] && column + x >= 0 && column + x < size) grid[row + y][column + x] = ring !== 2 && ring !== 4;
    }
  }
  finder(0, 0); finder(0, size - 7); finder(size - 7, 0);
  for (i = 8; i < size - 8; i++) grid[6][i] = grid[i][6] = i % 2 === 0;
  if (version) for (i = -2; i <= 2; i++) for (j = -2; j <= 2; j++)
    grid[size - 7 + i][size - 7 + j] = Math.max(Math.abs(i), Math.abs(j)) !== 1;
  for (i = 0; i < 15; i++) {
    var bit = (0x77C4 >> i & 1) === 1;
    grid[i < 6 ? i : i < 8 ? i + 1 : 8][i < 8 ? 8 : i < 9 ? 7 : 14 - i] = bit;
    grid[i < 8 ? 8 : size - 15 + i][i < 8 ? size - 1 - i : 8] = bit;
  }
  grid[size - 8][8] = true;
  var at = 0;
  for (var column = size - 1; column > 0; column -= 2) {
    if (column === 6) column--;
    for (i = 0; i < size; i++) for (j = 0; j < 2; j++) {
      var isUp = (column + 1 & 2) === 0, row = isUp ? size - 1 - i : i, x = column - j;
      if (grid[row][x] !== undefined) continue;
      var dark = (words[at >> 3] >> 7 - (at & 7) & 1) === 1;
      grid[row][x] = dark !== ((row + x) % 2 === 0);
      at++;
    }
  }
  return grid;
}

function qrImage(text) {
  var grid = qrCode(text);
  if (!grid) return h("p", { "class": "dim" }, text);
  var d = "";
  grid.forEach(function (row, y) { row.forEach(function (dark, x) { if (dark) d += "M" + x + " " + y + "h1v1h-1z"; }); });
  return h("svg", { "class": "qr", viewBox: "0 0 " + grid.length + " " + grid.length, role: "img", "aria-label": t("QR code") + ": " + text },
    h("path", { d: d }));
}
window.gtQrCode = qrCode;

// ---- Parts of pages ----------------------------------------------------------------------------------------

function facts(pairs) {
  function is(value) { return value !== "" && value !== null && value !== undefined && value.length !== 0; }
  return h("dl", { "class": "facts" }, pairs.filter(function (pair) { return is(pair[1]); })
    .map(function (pair) { return h("div", {}, h("dt", {}, pair[0]), h("dd", {}, pair[1])); }));
}

/// A table that becomes a list of cards on a narrow screen. A column is [name, value of a row, class].
function table(columns, rows, empty) {
  if (!rows.length) return h("p", { "class": "dim" }, empty);
  return h("div", { "class": "scroll" }, h("table", { "class": "stack" },
    h("thead", {}, h("tr", {}, columns.map(function (it) { return h("th", { "class": it[2], scope: "col" }, it[3] || it[0]); }))),
    h("tbody", {}, rows.map(function (row) {
      return h("tr", {}, columns.map(function (it) { return h("td", { "class": it[2], "data-name": it[0] }, it[1](row)); }));
    }))));
}

function field(name, input) { return h("label", {}, name, input); }

function link(text) {
  if (!/^https?:\/\//.test(text)) return h("code", {}, text);
  return h("a", { href: text, target: "_blank", rel: "noopener noreferrer" }, text);
}

function button(text, action, kind) {
  return h("button", { type: "button", "class": kind, onclick: action }, text);
}

// ---- Pages -------------------------------------------------------------------------------------------------

var main = $("main"), status = null, timer = null, shown = 0;

function rolesOf(name) {
  return (status ? status.roles : []).map(function (role, number) { role.number = number; return role; })
    .filter(function (role) { return role.role === name; });
}

/// Shows what `load` finds, and again every so many milliseconds while somebody looks.
function live(load, show, every) {
  var mine = shown;
  function again() {
    if (mine !== shown) return;
    if (document.hidden) { timer = setTimeout(again, 1000); return; }
    load().then(function (found) {
      // What is being typed or read by keyboard stays.
      if (mine === shown) show(found);
    }).catch(function (e) {
      if (mine === shown && e.status !== 401) notice(sentence(e));
    }).then(function () { if (mine === shown) timer = setTimeout(again, every); });
  }
  again();
}

/// Replaces the content of a part, unless the keyboard or a selection is inside.
function put(part, content) {
  var focused = part.contains(document.activeElement) && document.activeElement !== part;
  if (focused) return;
  clear(part);
  add(part, content);
}

function page(title) {
  clear(main);
  add(main, h("h1", {}, title));
  document.title = title + " – gt";
  for (var i = 1; i < arguments.length; i++) add(main, arguments[i]);
}

function saidOf(role) {
  if (role.role === "server") {
    var n = role.totals.clients;
    return n === 1 ? t("One client is connected.") : t("{0} clients are connected.", n);
  }
  var said = role.servers.map(function (server) {
    if (!server.isConnected) return t("Not connected to {0}.", server.server) + (server.error ? " " + server.error : "");
    var ways = server.tunnels.map(function (it) { return it.way.toUpperCase(); });
    ways = ways.filter(function (it, i) { return ways.indexOf(it) === i; }).join(", ");
    var since = Math.min.apply(null, server.tunnels.map(function (it) { return it.since; }));
    return t("Connected to {0} by {1} for {2}.", server.tunnels[0].remote, ways, ago(since));
  });
  var n = role.services.length;
  said.push(n === 0 ? t("No service is published.") : n === 1 ? t("One service is published.") : t("{0} services are published.", n));
  return said.join(" ");
}

function restart(event) {
  if (!confirm(t("Restart gt? Connections go on."))) return;
  act(event, function () { return call("POST", "restart"); }).then(function (before) {
    notice(t("Restarting…"));
    var tries = 0;
    (function wait() {
      setTimeout(function () {
        call("GET", "status").then(function (now) {
          if (now.pid !== before.pid) return notice(t("gt has restarted."));
          var last = now.lastChange;
          if (last && last.what === "restart" && last.error) return notice(t("gt has not restarted: ") + last.error);
          if (++tries < 60) wait();
        }, function () { if (++tries < 60) wait(); });
      }, 500);
    })();
  }).catch(quiet);
}

function overview() {
  var roles = h("div"), graph = h("section");
  page(t("Overview"), roles, graph, h("section", {},
    h("div", { "class": "row" },
      button(t("Reload"), function (e) { act(e, function () { return call("POST", "reload"); }, t("Reloaded.")).catch(quiet); }),
      button(t("Restart"), restart, "plain"))));
  live(function () { return Promise.all([call("GET", "status"), call("GET", "history")]); }, function (found) {
    status = found[0];
    navigation();
    put(roles, status.roles.map(function (role) {
      var isServer = role.role === "server", totals = role.totals;
      return h("section", {},
        h("h2", {}, t(isServer ? "Server" : "Client") + (isServer ? "" : " " + role.id)),
        h("p", { "class": "sentence" }, saidOf(role)),
        facts([
          [t("Uptime"), role.uptime === undefined ? "" : duration(role.uptime)],
          [t("Tunnels"), totals.tunnels], [t("Streams"), totals.streams],
          ["↑ " + t("Up"), bytes(totals.bytesUp)], ["↓ " + t("Down"), bytes(totals.bytesDown)],
          [t("Listens on"), (role.listeners || []).map(function (it) { return h("div", {}, it.option + " " + it.address); })],
          [t("Key"), role.fingerprint], [t("File"), role.file]
        ]),
        !isServer && [
          table([
            [t("Server"), function (it) { return it.remote; }, "wrap"], [t("Way"), function (it) { return it.way + (it.link ? " " + it.link : "") + ", " + it.version; }],
            [t("Since"), function (it) { return ago(it.since); }, "n"], [t("RTT"), function (it) { return millis(it.rtt); }, "n"],
            [t("Loss"), lossOf, "n"], [t("Streams"), function (it) { return it.streams; }, "n"],
            [t("Traffic"), function (it) { return "↑ " + bytes(it.bytesUp) + " ↓ " + bytes(it.bytesDown); }, "n"]
          ], [].concat.apply([], role.servers.map(function (it) { return it.tunnels; })), ""),
          role.services.map(function (it) {
            return h("div", { "class": "row" }, h("span", {}, it.local), it.links.map(link),
              it.isUp !== null && h("span", { "class": it.isUp ? "good" : "bad" }, t(it.isUp ? "works" : "is down")));
          }),
          role.peers.length > 0 && [h("h2", {}, t("Peers")), table([
            [t("Address"), function (it) { return it.address || ""; }, "wrap"], [t("State"), function (it) { return t(it.state); }],
            [t("Way"), function (it) { return it.way || ""; }], [t("RTT"), function (it) { return millis(it.rtt); }, "n"],
            [t("Loss"), lossOf, "n"],
            [t("Channels"), function (it) { return it.channels; }, "n"]], role.peers, "")]
        ]);
    }));
    put(graph, [h("h2", {}, t("The last hour")), chart(found[1].points),
      h("p", { "class": "dim" }, status.version + ", " + t("Process") + " " + status.pid)]);
  }, 3000);
}

var rates = Object.create(null);
/// Notes the traffic of a client, and returns its rates from old to new.
function rateOf(id, total) {
  var now = Date.now() / 1000, known = rates[id] || (rates[id] = { values: [] });
  if (known.time !== undefined && now - known.time > 0.5) {
    known.values.push(Math.max(0, total - known.total) / (now - known.time));
    if (known.values.length > 20) known.values.shift();
  }
  known.time = now;
  known.total = total;
  return known.values;
}

/// Forgets the rates of clients that are not listed any more.
function keepRates(listed) {
  var kept = Object.create(null);
  listed.forEach(function (it) { if (rates[it.id]) kept[it.id] = rates[it.id]; });
  rates = kept;
}
window.gtRates = function () { return Object.keys(rates); };

function namesOf(client) {
  return [].concat(client.prefixes, client.tlsPrefixes.map(function (it) { return "tls:" + it; }), client.domains || [],
    (client.tlsDomains || []).map(function (it) { return "tls:" + it; })).join(", ");
}

function portsOf(client) {
  return client.ports.concat((client.udpPorts || []).map(function (it) { return it + "/udp"; })).join(", ");
}

function clients() {
  var options = { search: "", sort: "id", offset: 0 }, limit = 50;
  var list = h("div"), count = h("span", { "class": "dim" });
  var search = h("input", { type: "search", "aria-label": t("Search"), placeholder: t("Search: id, address, name or port"),
    oninput: function () { options.search = search.value; options.offset = 0; refresh(); } });
  function move(by) { options.offset = Math.max(0, options.offset + by); refresh(); }
  var back = button(t("Previous"), function () { move(-limit); }, "plain");
  var next = button(t("Next"), function () { move(limit); }, "plain");
  // A narrow screen has no heads of columns.
  var keys = [["id", "Id"], ["address", "Address"], ["since", "Since"], ["tunnels", "Tunnels"], ["way", "Way"], ["rtt", "RTT"],
    ["names", "Names"], ["domains", "Domains"], ["ports", "Ports"], ["streams", "Streams"], ["rate", "Rate"], ["bytes", "Traffic"]];
  var choice = h("select", { "aria-label": t("Sort by"), onchange: function () { sortBy(choice.value); } },
    [].concat.apply([], keys.map(function (it) {
      return [h("option", { value: it[0] }, t(it[1]) + " ↑"), h("option", { value: "-" + it[0] }, t(it[1]) + " ↓")];
    })));
  page(t("Clients"), h("section", {}, h("div", { "class": "row" }, search, h("label", { "class": "narrow" }, t("Sort by"), " ", choice), count),
    list, h("div", { "class": "row" }, back, next)));
  function sortBy(key) {
    options.sort = choice.value = key;
    options.offset = 0;
    refresh();
  }
  function sorter(name, key) {
    var isIt = options.sort.replace("-", "") === key, isDown = options.sort[0] === "-";
    return h("button", { type: "button", "aria-label": name + (isIt ? isDown ? " ↓" : " ↑" : ""), onclick: function (e) {
      e.currentTarget.blur();
      sortBy(isIt && !isDown ? "-" + key : key);
    } }, name + (isIt ? isDown ? " ↓" : " ↑" : ""));
  }
  function query() {
    return "server/clients?limit=" + limit + "&offset=" + options.offset + "&sort=" + options.sort +
      "&search=" + encodeURIComponent(options.search);
  }
  function show(found) {
    count.textContent = t("{0} of {1} clients", found.found, found.all);
    keepRates(found.clients);
    back.disabled = options.offset === 0;
    next.disabled = options.offset + limit >= found.found;
    put(list, table([
      [t("Id"), function (it) { return h("a", { href: "#/clients/" + encodeURIComponent(it.id) }, it.id); }, "wrap", sorter(t("Id"), "id")],
      [t("Address"), function (it) { return it.address; }, "", sorter(t("Address"), "address")],
      [t("Since"), function (it) { return ago(it.since); }, "n", sorter(t("Since"), "since")],
      [t("Tunnels"), function (it) { return it.tunnels; }, "n", sorter(t("Tunnels"), "tunnels")],
      [t("Way"), function (it) { return it.ways.join(", "); }, "", sorter(t("Way"), "way")],
      [t("RTT"), function (it) { return millis(it.rtt); }, "n", sorter(t("RTT"), "rtt")],
      [t("Names"), namesOf, "wrap", sorter(t("Names"), "names")],
      [t("Ports"), portsOf, "wrap few", sorter(t("Ports"), "ports")],
      [t("Streams"), function (it) { return it.streams; }, "n", sorter(t("Streams"), "streams")],
      [t("Rate"), function (it) {
        var values = rateOf(it.id, it.bytesUp + it.bytesDown), now = values[values.length - 1];
        // Another page of a list by rate has clients that were not listed before.
        var last = bytes((now === undefined ? it.rate : now) || 0) + "/s";
        return h("span", {}, spark(values, last), " ", last);
      }, "n", sorter(t("Rate"), "rate")],
      [t("Traffic"), function (it) { return "↑ " + bytes(it.bytesUp) + " ↓ " + bytes(it.bytesDown); }, "n", sorter(t("Traffic"), "bytes")]
    ], found.clients, t(options.search ? "Nothing is found." : "No client is connected.")));
  }
  function load() { return call("GET", query()); }
  function refresh() { load().then(show).catch(function (e) { notice(sentence(e)); }); }
  live(load, show, 3000);
}

function client(id) {
  var part = h("div");
  page(t("Client") + " " + id, h("p", {}, h("a", { href: "#/clients" }, "← " + t("Clients"))), part);
  function load() { return call("GET", "server/clients/" + encodeURIComponent(id)); }
  function limit(n, unit) { return n ? unit ? bytes(n) + unit : n : t("no limit"); }
  function ports(it) { return it.rules.map(function (rule) { return rule.range; }).join(", ") || t("none"); }
  live(load, function (found) {
    var it = found.client, limits = found.limits;
    put(part, [
      h("section", {}, facts([
        [t("Address"), it.address], [t("Since"), ago(it.since)], [t("Streams"), it.streams], [t("RTT"), millis(it.rtt)],
        [t("Names"), namesOf(it)], [t("Ports"), portsOf(it)], ["↑ " + t("Up"), bytes(it.bytesUp)], ["↓ " + t("Down"), bytes(it.bytesDown)],
        [t("is down"), (it.down || []).join(", ")]])),
      h("section", {}, h("h2", {}, t("Visitors")), table([
        [t("Address"), function (v) { return v.address || "?"; }, "wrap"], [t("Service"), function (v) { return v.service; }, "wrap"],
        [t("Way"), function (v) { return v.way; }], [t("Since"), function (v) { return ago(v.since); }, "n"],
        [t("Traffic"), function (v) { return "↑ " + bytes(v.bytesUp) + " ↓ " + bytes(v.bytesDown); }, "n"],
        ["", function (v) {
          return h("button", { type: "button", "class": "danger", "aria-label": t("Cut") + " " + v.address, onclick: function (e) {
            act(e, function () { return call("DELETE", "server/visitors/" + v.number); }, t("The visitor is cut."))
              .then(function () { document.activeElement.blur(); }).catch(quiet);
          } }, t("Cut"));
        }, "n"]], found.visitors, t("No visitor is connected.")),
        found.visitorCount > found.visitors.length && h("p", { "class": "dim" }, t("and {0} more", found.visitorCount - found.visitors.length))),
      h("section", {}, h("h2", {}, t("Tunnels")), table([
        [t("Way"), function (v) { return (v.way || "") + ", " + v.version; }], [t("RTT"), function (v) { return millis(v.rtt); }, "n"],
        [t("Loss"), lossOf, "n"], [t("Streams"), function (v) { return v.streams; }, "n"],
        [t("Traffic"), function (v) { return "↑ " + bytes(v.bytesUp) + " ↓ " + bytes(v.bytesDown); }, "n"]], found.tunnels, "")),
      h("section", {}, h("h2", {}, t("Limits")), facts([
        [t("Speed"), limit(limits.speed, "/s")], [t("Tunnels"), limit(limits.connections)], [t("Host prefixes"), limit(limits.hosts)],
        [t("TCP ports"), ports(limits.tcp)], [t("UDP ports"), ports(limits.udp)], [t("Domains"), limits.domains.join(", ") || t("none")]]))
    ]);
  }, 3000);
}

function once(text, secret) {
  return h("section", { role: "alert" }, h("p", {}, text), h("div", { "class": "row" }, h("code", {}, secret),
    button(t("Copy"), function () {
      if (navigator.clipboard) navigator.clipboard.writeText(secret).then(function () { notice(t("Copied.")); }, quiet);
    }, "plain")));
}

function users() {
  var list = h("div"), told = h("div"), form = h("div");
  page(t("Users"), told, h("section", {}, list), form);
  function path(id) { return "server/users/" + encodeURIComponent(id); }
  function tell(id, answer) {
    clear(told);
    if (answer.secret) add(told, once(t("The secret of {0}, shown once:", id), answer.secret));
    refresh();
  }
  function change(e, id, body) {
    act(e, function () { return call("PATCH", path(id), body); }, t("Done.")).then(function (answer) { tell(id, answer); }).catch(quiet);
  }
  function number(text) { return text === "" ? null : Number(text); }
  function edit(user) {
    var limits = user ? user.limits || {} : {};
    var host = limits.host || {}, tcp = list_(limits.tcp).map(function (it) { return it.range || it; }).join(", ");
    var input = function (value, kind) { return h("input", { type: kind || "text", value: value === undefined ? "" : value, autocomplete: "off", placeholder: user ? t("empty: as for all") : "" }); };
    var id = input(user ? user.id : ""), secret = h("input", { type: "text", autocomplete: "off", placeholder: t("made by gt if empty") });
    var speed = input(limits.speed, "number"), connections = input(limits.connections, "number"), hosts = input(host.number, "number");
    var ports = input(tcp), keys = h("textarea", { rows: 2, style: null, value: list_(limits.publicKey).join("\n") });
    keys.style.minHeight = "4em";
    id.required = true;
    clear(form);
    add(form, h("section", {}, h("h2", {}, user ? t("Change") + " " + user.id : t("Add a user")),
      h("form", { "class": "grid", onsubmit: function (e) {
        e.preventDefault();
        var body = {};
        function set(key, value, before) {
          if (JSON.stringify(value) !== JSON.stringify(before === undefined ? null : before)) body[key] = value;
        }
        set("speed", number(speed.value), limits.speed === undefined ? null : Number(limits.speed));
        set("connections", number(connections.value), limits.connections === undefined ? null : Number(limits.connections));
        var count = number(hosts.value);
        if (count !== (host.number === undefined ? null : Number(host.number))) {
          body.host = {};
          Object.keys(host).forEach(function (key) { body.host[key] = host[key]; });
          if (count === null) delete body.host.number; else body.host.number = count;
          if (!Object.keys(body.host).length) body.host = null;
        }
        if (ports.value.trim() !== tcp) {
          var ranges = ports.value.split(",").map(function (it) { return { range: it.trim() }; }).filter(function (it) { return it.range; });
          body.tcp = ranges.length ? ranges : null;
        }
        var lines = keys.value.split("\n").map(function (it) { return it.trim(); }).filter(Boolean);
        set("publicKey", lines.length ? lines : null, limits.publicKey === undefined ? null : list_(limits.publicKey));
        if (!user) {
          body.id = id.value;
          if (secret.value) body.secret = secret.value;
        }
        Object.keys(body).forEach(function (key) { if (!user && body[key] === null) delete body[key]; });
        act(e, function () { return user ? call("PATCH", path(user.id), body) : call("POST", "server/users", body); }, t("Saved."))
          .then(function (answer) { tell(id.value, answer); edit(null); }).catch(quiet);
      } },
      !user && field(t("Id"), id), !user && field(t("Secret"), secret),
      field(t("Speed limit in bytes per second"), speed), field(t("Maximum number of tunnels"), connections),
      field(t("Maximum number of host prefixes"), hosts), field(t("TCP ports, like 6000-6010"), ports),
      field(t("Public keys, one in a line"), keys),
      h("div", { "class": "row" }, h("button", {}, user ? t("Save") : t("Add")),
        user && button(t("Cancel"), function () { edit(null); }, "plain")))));
    if (user) speed.focus();
  }
  function refresh() {
    call("GET", "server/users").then(function (found) {
      clear(list);
      add(list, table([
        [t("Id"), function (it) { return it.id; }, "wrap"],
        [t("State"), function (it) { return it.disabled ? h("span", { "class": "warn" }, t("disabled")) : t(it.hasSecret ? "has a secret" : "no secret"); }],
        [t("Limits"), function (it) {
          return Object.keys(it.limits || {}).map(function (key) {
            var value = it.limits[key];
            return key + ": " + (typeof value === "object" ? JSON.stringify(value) : value);
          }).join(", ");
        }, "wrap"],
        ["", function (it) {
          return h("span", { "class": "row" },
            button(t("Change"), function () { edit(it); }, "plain"),
            button(t(it.disabled ? "Enable" : "Disable"), function (e) { change(e, it.id, { disabled: it.disabled ? null : true }); }, "plain"),
            button(t("New secret"), function (e) {
              if (confirm(t("Make a new secret for {0}? The old one ends at once.", it.id))) change(e, it.id, { secret: "new" });
            }, "plain"),
            button(t("Remove"), function (e) {
              if (confirm(t("Remove the user {0}?", it.id)))
                act(e, function () { return call("DELETE", path(it.id)); }, t("Done.")).then(refresh).catch(quiet);
            }, "danger"));
        }]], found.users, t("There is no user in the files.")));
    }).catch(function (e) { clear(list); add(list, h("p", {}, sentence(e))); });
  }
  refresh();
  edit(null);
}

/// A list of addresses that are kept out, each of which can be let in again.
function liftable(title, path, key, columns, empty) {
  var list = h("div");
  function load() { return call("GET", path); }
  function show(found) {
    put(list, table(columns.concat([
      [t("Left"), function (it) { return duration(it.seconds); }, "n"],
      ["", function (it) {
        return h("button", { type: "button", "class": "plain", "aria-label": t("Lift") + " " + it.address, onclick: function (e) {
          act(e, function () { return call("DELETE", path + "/" + encodeURIComponent(it.address)); }, t("Lifted."))
            .then(function () { document.activeElement.blur(); return load().then(show); }).catch(quiet);
        } }, t("Lift"));
      }, "n"]]), found[key], empty));
  }
  add(main, h("section", {}, title && h("h2", {}, title), list));
  live(load, show, 5000);
}

function lockouts() {
  var columns = [[t("Address"), function (it) { return it.address; }, "wrap"], [t("Failures"), function (it) { return it.failures; }, "n"]];
  page(t("Lockouts"));
  if (rolesOf("server").length) liftable(t("Failed logins of clients"), "server/lockouts", "lockouts", columns, t("No address is locked out."));
  liftable(t("Failed logins at this page"), "lockouts", "lockouts", columns, t("No address is locked out."));
}

function certificates() {
  var part = h("div");
  page(t("Certificates"), part);
  live(function () { return call("GET", "server/certificate"); }, function (found) {
    put(part, [
      h("section", {}, h("h2", {}, t("Server")), facts([
        [t("File"), found.certFile || t(found.fingerprint ? "made by gt" : "none")], [t("Key"), found.fingerprint]])),
      h("section", {}, h("h2", {}, t("Names of clients")), table([
        [t("Name"), function (it) { return it.name; }, "wrap"],
        [t("State"), function (it) {
          return h("span", { "class": it.state !== "valid" ? "bad" : it.error ? "warn" : "good" }, t(it.state) + (it.error ? ": " + it.error : ""));
        }, "wrap"],
        [t("Ends"), function (it) {
          if (it.expires === null) return "";
          return new Date(it.expires * 1000).toLocaleDateString() +
            (it.state === "valid" ? " (" + t("in {0}", duration(it.expires - Date.now() / 1000)) + ")" : "");
        }, "n"]], found.names, t("No name has a certificate of an authority (acmeDomain).")),
        found.more > 0 && h("p", { "class": "dim" }, t("and {0} more", found.more)))]);
  }, 10000);
}

function bans() {
  page(t("Bans"));
  liftable("", "client/bans", "bans", [
    [t("Address"), function (it) { return it.address; }, "wrap"],
    [t("Service"), function (it) { return it.service.kind + " " + (it.service.names ? it.service.names.join(", ") : it.service.port || ""); }, "wrap"]],
    t("No address is banned."));
}

function services() {
  var list = h("div"), code = h("div"), form = h("div");
  page(t("Services"), h("section", {}, list, code), form);
  function test(e, number) {
    act(e, function () { return call("POST", "client/services/" + number + "/test"); }).then(function (answer) {
      notice(answer.ok ? t("{0} answers.", answer.local) : answer.error);
    }).catch(quiet);
  }
  function edit(number, service) {
    var now = service || {};
    var kinds = [["hostPrefix", "host prefix"], ["domain", "domain"], ["remoteTCPPort", "TCP port"], ["remoteUDPPort", "UDP port"]];
    var has = kinds.filter(function (it) { return now[it[0]] !== undefined; })[0] || kinds[0];
    var local = h("input", { type: "text", value: now.local || "", placeholder: "http://127.0.0.1:80", required: true, autocomplete: "off", spellcheck: "false" });
    var kind = h("select", {}, kinds.map(function (it) { return h("option", { value: it[0], selected: it === has }, t(it[1])); }));
    var value = h("input", { type: "text", value: list_(now[has[0]]).join(", "), autocomplete: "off", spellcheck: "false" });
    clear(form);
    add(form, h("section", {}, h("h2", {}, service ? t("Change") : t("Add a service")),
      h("form", { "class": "grid", onsubmit: function (e) {
        e.preventDefault();
        var body = { local: local.value.trim() }, text = value.value.trim();
        kinds.forEach(function (it) { if (service && now[it[0]] !== undefined) body[it[0]] = null; });
        if (text) body[kind.value] = kind.value === "domain" ? text.split(/[ ,]+/) : text;
        act(e, function () {
          return service ? call("PATCH", "client/services/" + number, body) : call("POST", "client/services", body);
        }, t("Saved.")).then(function () { refresh(); edit(); }).catch(quiet);
      } },
      field(t("Local address"), local), field(t("Published by"), kind), field(t("Value"), value),
      h("div", { "class": "row" }, h("button", {}, service ? t("Save") : t("Add")), service && button(t("Cancel"), function () { edit(); }, "plain")))));
    if (service) local.focus();
  }
  function refresh() {
    call("GET", "client/services").then(function (found) {
      var running = found.running || [], names = Object.create(null);
      function runs(service) {
        var at = -1;
        running.forEach(function (it, i) { if (at < 0 && it.local === service.local && !names[i]) at = i; });
        if (at >= 0) names[at] = true;
        return at;
      }
      var rows = found.services.map(function (service, number) { return { service: service, number: number, at: runs(service) }; });
      running.forEach(function (it, i) { if (!names[i]) rows.push({ service: { local: it.local }, at: i }); });
      clear(list);
      add(list, table([
        [t("Local"), function (it) { return it.service.local; }, "wrap"],
        [t("Published at"), function (it) {
          var its = running[it.at];
          if (!its) return "";
          return its.links.length ? its.links.map(function (one) { return h("div", {}, link(one)); })
            : its.exposure.kind + " " + (its.exposure.names ? its.exposure.names.join(", ") : its.exposure.port || "");
        }, "wrap"],
        [t("State"), function (it) {
          var its = running[it.at];
          return its && its.isUp !== null ? h("span", { "class": its.isUp ? "good" : "bad" }, t(its.isUp ? "works" : "is down")) : "";
        }],
        ["", function (it) {
          var its = running[it.at], first = its && its.links.filter(function (one) { return /^http/.test(one); })[0];
          return h("span", { "class": "row" },
            first && button(t("QR code"), function () { clear(code); add(code, qrImage(first)); }, "plain"),
            it.at >= 0 && button(t("Test"), function (e) { test(e, it.at); }, "plain"),
            it.number !== undefined && [
              button(t("Change"), function () { edit(it.number, it.service); }, "plain"),
              button(t("Remove"), function (e) {
                if (confirm(t("Remove this service?")))
                  act(e, function () { return call("DELETE", "client/services/" + it.number); }, t("Done.")).then(refresh).catch(quiet);
              }, "danger")]);
        }]], rows, t("There is no service yet.")),
        rows.some(function (it) { return it.number === undefined; }) &&
          h("p", { "class": "dim" }, t("Services of flags or of options: change them there.")));
    }).catch(function (e) { clear(list); add(list, h("p", {}, sentence(e))); });
  }
  refresh();
  edit();
}

function config() {
  var files = status.roles.map(function (role, number) { return { number: number, file: role.file, role: role.role }; })
    .filter(function (it) { return it.file; });
  if (!files.length) return page(t("Configuration"), h("section", {}, t("gt runs without a file; flags cannot be changed here.")));
  var choice = h("select", { "aria-label": t("File"), onchange: load }, files.map(function (it) { return h("option", { value: it.number }, it.file + " (" + t(it.role === "server" ? "Server" : "Client") + ")"); }));
  var text = h("textarea", { "aria-label": t("Configuration"), spellcheck: "false", autocapitalize: "off", autocomplete: "off", rows: 24 });
  var result = h("p", { id: "result", role: "alert" }), etag = null;
  function path(more) { return "config" + (more || "") + "?role=" + choice.value; }
  function tell(kind, said, number) {
    result.className = kind;
    result.textContent = said;
    if (!number) return;
    var lines = text.value.split("\n"), start = lines.slice(0, number - 1).join("\n").length + (number > 1 ? 1 : 0);
    text.focus();
    text.setSelectionRange(start, start + (lines[number - 1] || "").length);
    text.scrollTop = Math.max(0, (number - 6) * text.scrollHeight / Math.max(1, lines.length));
  }
  function load() {
    call("GET", path()).then(function (found) { text.value = found.text; etag = found.etag; tell("", ""); },
      function (e) { tell("bad", sentence(e), e.line); });
  }
  function failed(e) { tell("bad", sentence(e), e.line); }
  page(t("Configuration"), h("section", {}, choice,
    h("p", { "class": "dim" }, t("Secrets are hidden. A hidden value stays as it is; write over it to change it.")), text, result,
    h("div", { "class": "row" },
      button(t("Save"), function (e) {
        act(e, function () { return call("PUT", path(), { text: text.value }, { "If-Match": "\"" + etag + "\"" }); }, "", true).then(function (answer) {
          return call("GET", path()).then(function (found) { text.value = found.text; etag = found.etag; }, quiet).then(function () {
            if (answer.reloadError) tell("bad", t("Saved, but not reloaded: ") + answer.reloadError);
            else tell(answer.warnings.length ? "warn" : "good", t("Saved and reloaded; the former file has the suffix .bak.") +
              answer.warnings.map(function (it) { return " " + t("Warning: ") + it; }).join(""));
          });
        }, failed);
      }),
      button(t("Check"), function (e) {
        act(e, function () { return call("POST", path("/check"), { text: text.value }); }, "", true).then(function (answer) {
          if (answer.ok) tell(answer.warnings.length ? "warn" : "good", t("The configuration is right.") +
            answer.warnings.map(function (it) { return " " + t("Warning: ") + it; }).join(""));
          else failed(answer);
        }, failed);
      }, "plain"),
      button(t("Load again"), load, "plain"))));
  load();
}

function log() {
  var last = 0, lines = h("pre", { tabindex: 0, "aria-label": t("Log") });
  var follow = h("input", { type: "checkbox", checked: true });
  follow.checked = true;
  var level = h("select", { "aria-label": t("Level"), onchange: filter }, h("option", { value: "" }, t("all")), h("option", { value: "1" }, t("warnings and errors")));
  function filter() {
    [].forEach.call(lines.children, function (it) { it.hidden = level.value !== "" && !/WRN|ERR|FTL|PNC/.test(it.className); });
  }
  page(t("Log"), h("section", {}, h("div", { "class": "row" }, level, h("label", {}, follow, t("Follow"))), lines));
  level.style.width = "auto";
  live(function () { return call("GET", "log?after=" + last); }, function (found) {
    found.lines.forEach(function (it) {
      last = it.number;
      var time = new Date(it.time * 1000).toLocaleTimeString();
      add(lines, h("div", { "class": it.text.slice(0, 3) }, time + " " + it.text));
    });
    while (lines.children.length > 1000) lines.removeChild(lines.firstChild);
    if (found.lines.length) filter();
    if (found.lines.length && follow.checked) lines.scrollTop = lines.scrollHeight;
  }, 2000);
}

// ---- Signing in, and the way from page to page -------------------------------------------------------------

function navigation() {
  var server = rolesOf("server").length, client = rolesOf("client").length, here = location.hash.split("/")[1] || "";
  var pages = [["", "Overview"]]
    .concat(server ? [["clients", "Clients"], ["users", "Users"], ["certificates", "Certificates"]] : [])
    .concat(client ? [["services", "Services"], ["bans", "Bans"]] : [])
    .concat([["lockouts", "Lockouts"], ["config", "Configuration"], ["log", "Log"]]);
  var nav = $("nav");
  if (nav.contains(document.activeElement) && nav.children.length === pages.length) {
    [].forEach.call(nav.children, function (it, i) {
      if (pages[i][0] === here) it.setAttribute("aria-current", "page"); else it.removeAttribute("aria-current");
    });
    return;
  }
  clear(nav);
  pages.forEach(function (it) {
    add(nav, h("a", { href: "#/" + it[0], "aria-current": it[0] === here && "page" }, t(it[1])));
  });
  // On a narrow screen only some of them are seen.
  var current = nav.querySelector("[aria-current]");
  if (current) nav.scrollLeft = current.offsetLeft - nav.offsetLeft - 40;
}

function go() {
  if (!status) return;
  clearTimeout(timer);
  shown++;
  navigation();
  var parts = location.hash.split("/").slice(1).map(function (part) {
    try { return decodeURIComponent(part); } catch (_) { return part; }
  });
  var pages = { clients: parts[1] ? function () { client(parts[1]); } : clients, users: users, lockouts: lockouts, certificates: certificates,
    services: services, bans: bans, config: config, log: log };
  (own(pages, parts[0] || "") || overview)();
}

function signedOut() {
  clearTimeout(timer);
  shown++;
  keep(status = null);
  $("top").hidden = true;
  var name = h("input", { type: "text", autocomplete: "username", required: true, value: "admin" });
  var password = h("input", { type: "password", autocomplete: "current-password", required: true });
  var wrong = h("p", { "class": "bad", role: "alert" });
  clear(main);
  add(main, h("section", { "class": "login" }, h("h1", {}, "gt"), h("form", { onsubmit: function (e) {
    e.preventDefault();
    wrong.textContent = "";
    act(e, function () { return call("POST", "login", { admin: name.value, password: password.value }); }, "", true)
      .then(signedIn, function (e) { wrong.textContent = sentence(e); });
  } }, field(t("Name"), name), field(t("Password"), password), wrong, h("div", { "class": "row" }, h("button", {}, t("Sign in"))))));
  document.title = "gt";
  password.focus();
}

function signedIn(session) {
  if (session.csrf) keep(session.csrf);
  return call("GET", "status").then(function (found) {
    status = found;
    $("top").hidden = false;
    go();
  }).catch(function (e) { if (e.status !== 401) notice(sentence(e)); });
}

document.querySelector(".skip").textContent = t("Skip to the content");
$("nav").setAttribute("aria-label", t("Pages"));
$("out").textContent = t("Sign out");
$("out").addEventListener("click", function () { call("POST", "logout").then(signedOut, signedOut); });
window.addEventListener("hashchange", go);

var once_ = /^#link=([0-9a-f]+)$/.exec(location.hash);
if (once_) {
  history.replaceState(null, "", location.pathname);
  call("POST", "login", { link: once_[1] }).then(signedIn, function (e) { signedOut(); notice(sentence(e)); });
} else if (!token) {
  signedOut();
} else {
  call("GET", "session").then(signedIn, function (e) { if (e.status !== 401) { signedOut(); notice(sentence(e)); } });
}
})();
