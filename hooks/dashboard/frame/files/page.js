// The page's own script. Without it the page works, and does not move.
"use strict";
(() => {
	const body = document.body, base = body.dataset.base;
	const byId = (id) => document.getElementById(id);

	// Times: how long ago, and in the zone of who looks.
	let local = false;
	try { local = localStorage.getItem("narwharf-times") === "local"; } catch { /* not allowed: UTC */ }
	const ago = (ms) => {
		const s = Math.abs(ms) / 1000, text = s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : s < 129600 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d";
		return ms >= 0 ? text + " ago" : "in " + text;
	};
	const pad = (n) => String(n).padStart(2, "0");
	const here = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
	const times = (root) => {
		for (const t of root.querySelectorAll("time[datetime]")) {
			const d = new Date(t.dateTime);
			if (isNaN(d)) continue;
			t.dataset.utc ??= t.textContent;
			t.textContent = (local ? here(d) : t.dataset.utc) + " · " + ago(Date.now() - d);
			t.title = local ? t.dataset.utc : here(d) + " here";
		}
	};
	const zone = byId("zone");
	if (zone) {
		const b = document.createElement("button");
		const say = () => { b.textContent = local ? "show UTC" : "show local times"; };
		b.type = "button"; b.className = "copy"; say();
		b.addEventListener("click", () => {
			local = !local; say(); times(document);
			try { localStorage.setItem("narwharf-times", local ? "local" : "utc"); } catch { /* for this page alone */ }
		});
		zone.append(` (here it is ${Intl.DateTimeFormat().resolvedOptions().timeZone})`, b);
	}

	// Copy buttons.
	const copies = (root) => {
		for (const c of root.querySelectorAll("[data-copy]")) {
			if (!navigator.clipboard || c.nextElementSibling?.classList.contains("copy")) continue;
			const b = document.createElement("button");
			b.type = "button"; b.className = "copy"; b.textContent = "copy";
			b.addEventListener("click", async () => { await navigator.clipboard.writeText(c.textContent); b.textContent = "copied"; setTimeout(() => { b.textContent = "copy"; }, 1500); });
			c.after(b);
		}
	};

	// Cells: a letter each, drawn as one path for each letter.
	const states = new WeakMap();
	const letters = (svg) => {
		if (!states.has(svg)) states.set(svg, [...svg.dataset.cells.matchAll(/([a-z])(\d*)/g)].flatMap((m) => Array(Number(m[2] || 1)).fill(m[1])));
		return states.get(svg);
	};
	const draw = (svg, letter) => {
		const all = letters(svg), cols = Number(svg.dataset.columns), g = svg.firstElementChild;
		let d = "";
		for (let i = 0; i < all.length;) {
			let n = 1;
			while ((i + n) % cols && all[i + n] === all[i]) n++;
			if (all[i] === letter) d += `M${i % cols} ${Math.floor(i / cols)}h${n}`;
			i += n;
		}
		let path = g.querySelector("." + letter);
		if (!path && d) { path = document.createElementNS(svg.namespaceURI, "path"); path.setAttribute("class", letter); g.append(path); }
		path?.setAttribute("d", d);
	};
	const recolour = (svg, runs) => {
		const all = letters(svg), touched = new Set();
		for (const [, from, to, letter] of runs.matchAll(/(\d+)(?:-(\d+))?:([a-z])/g)) {
			for (let i = Number(from); i <= Number(to ?? from); i++) { touched.add(all[i]); all[i] = letter; }
			touched.add(letter);
		}
		touched.forEach((letter) => draw(svg, letter));
	};
	document.addEventListener("click", async (e) => {
		const svg = e.target.closest?.("svg.cells");
		if (!svg?.dataset.ask) return;
		const box = svg.getBoundingClientRect(), cols = Number(svg.dataset.columns), rows = svg.viewBox.baseVal.height;
		const at = Math.floor((e.clientY - box.top) / box.height * rows) * cols + Math.min(cols - 1, Math.floor((e.clientX - box.left) / box.width * cols));
		if (at < 0 || at >= letters(svg).length) return;
		const answer = await fetch(base + svg.dataset.ask + at).catch(() => null), out = byId("cell");
		if (out && answer?.ok) { out.innerHTML = await answer.text(); times(out); }
	});

	times(document); copies(document);
	setInterval(() => times(document), 20000);

	// One stream while the tab is seen. An event names the elements that are others now.
	if (!body.dataset.live || !window.EventSource) return;
	const lost = byId("lost");
	let source = null, heard = Date.now(), seen = body.dataset.seen, over = false;
	const say = (text) => {
		lost.hidden = !text;
		if (!text) return;
		const a = document.createElement("a");
		a.href = location.href; a.className = "button"; a.textContent = "Load again";
		lost.replaceChildren(text + " ", a);
	};
	const put = (id, html) => {
		const was = byId(id), t = document.createElement("template");
		t.innerHTML = html;
		const is = t.content.firstElementChild;
		if (!was || !is) return;
		const at = was.contains(document.activeElement) ? document.activeElement : null;
		for (const d of was.querySelectorAll("details[open][id]")) is.querySelector("#" + CSS.escape(d.id))?.setAttribute("open", "");
		const down = was.scrollHeight - was.scrollTop - was.clientHeight < 8, top = was.scrollTop;
		was.replaceWith(is);
		if (is.classList.contains("log")) is.scrollTop = down ? is.scrollHeight : top;
		times(is); copies(is); copies(is.parentElement);
		if (at) (is.querySelector(at.id ? "#" + CSS.escape(at.id) : `[href="${CSS.escape(at.getAttribute("href") ?? "")}"]`) ?? is).focus?.();
	};
	const open = () => {
		if (source || over) return;
		source = new EventSource(`${base}/ui/live?view=${encodeURIComponent(body.dataset.live)}&seen=${encodeURIComponent(seen ?? "")}`);
		source.onopen = () => { heard = Date.now(); say(""); };
		source.onmessage = (e) => {
			heard = Date.now(); seen = e.lastEventId; say("");
			const news = JSON.parse(e.data);
			if ((news.shape ?? "") !== (body.dataset.shape ?? "")) { over = true; shut(); location.reload(); return; }
			for (const [id, html] of Object.entries(news.fragments ?? {})) put(id, html);
			for (const [id, runs] of Object.entries(news.cells ?? {})) { const svg = byId(id); if (svg) recolour(svg, runs); }
			document.title = (news.bad ? `(${news.bad}) ` : "") + news.tab + " – Narwharf";
		};
		source.addEventListener("alive", () => { heard = Date.now(); say(""); });
		source.addEventListener("bye", (e) => { over = true; shut(); say(JSON.parse(e.data).why); });
	};
	const shut = () => { source?.close(); source = null; };
	document.addEventListener("visibilitychange", () => { if (document.hidden) shut(); else { heard = Date.now(); open(); } });
	window.addEventListener("pagehide", shut);
	window.addEventListener("pageshow", () => { if (!document.hidden) open(); });
	setInterval(() => {
		if (over || document.hidden) return;
		if (Date.now() - heard > 30000) say(`No word from the server since ${here(new Date(heard))}. What is here may be old.`);
		if (!source || source.readyState === EventSource.CLOSED) { shut(); open(); }
	}, 5000);
	if (!document.hidden) open();
})();
