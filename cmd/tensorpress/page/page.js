"use strict";
// Makes the lists of the page searchable and sortable. The rows are those that the page has
// without scripts, a hundred in each tbody; here they are put in another order, or left out.

const perBody = 100;
const slice = 8; // milliseconds of work between which the page answers
const collator = new Intl.Collator("en", { numeric: true });

for (const section of document.querySelectorAll(".list")) {
	list(section);
}

function list(section) {
	const table = section.querySelector("table");
	const bodies = [...table.tBodies];
	const rows = bodies.flatMap(body => [...body.rows]);
	const heads = [...table.tHead.rows[0].cells];
	const find = section.querySelector(".find");
	const input = find.querySelector("input");
	const count = find.querySelector("output");
	const keys = []; // of each column, once they were needed, those of the rows
	let texts; // of each row, in small letters, once they were needed
	let order = rows.map((_, i) => i);
	let hits = order; // those of them that are in the table
	let stale = new Set(); // the bodies that have yet to get their rows
	let timer;

	// show lists what the search finds. To move ten thousand rows takes a second, so those
	// in sight come at once, and others in small slices or when they are scrolled to.
	function show() {
		hits = found();
		count.value = hits.length === rows.length ? `${rows.length} ${section.dataset.noun}` : `${hits.length} of ${rows.length} ${section.dataset.noun}`;
		stale = new Set(bodies.slice(0, Math.ceil(hits.length / perBody)));
		bodies.forEach(body => {
			body.classList.toggle("out", !stale.has(body));
			body.classList.toggle("stale", stale.has(body));
		});
		table.parentNode.scrollTop = 0;
		fill(bodies[0]);
		table.setAttribute("aria-busy", "true");
		clearTimeout(timer);
		timer = setTimeout(fillOthers);
	}

	function found() {
		const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
		if (!words.length) {
			return order;
		}
		readTexts();
		return order.filter(i => words.every(word => texts[i].includes(word)));
	}

	function readTexts() {
		texts ??= rows.map(row => Array.from(row.children, cell => cell.textContent).join("\t").toLowerCase());
	}

	function fill(body) {
		if (stale.delete(body)) {
			const first = bodies.indexOf(body) * perBody;
			body.replaceChildren(...hits.slice(first, first + perBody).map(i => rows[i]));
			body.classList.remove("stale");
		}
	}

	function fillOthers() {
		const end = performance.now() + slice;
		for (const body of stale) {
			if (performance.now() > end) {
				timer = setTimeout(fillOthers);
				return;
			}
			fill(body);
		}
		table.removeAttribute("aria-busy");
	}

	// sort sorts by a column: numbers with the greatest first, texts from a to z; then the
	// other way, then as in the file. Cells without a value come last.
	function sort(column) {
		const head = heads[column];
		const numbers = head.classList.contains("n");
		const ways = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
		const way = ways[ways.indexOf(head.getAttribute("aria-sort")) + 1];
		heads.forEach(other => other.removeAttribute("aria-sort"));
		order = rows.map((_, i) => i);
		if (way) {
			head.setAttribute("aria-sort", way);
			const key = keys[column] ??= rows.map(row => numbers ? number(row.children[column]) : row.children[column].textContent);
			const compare = numbers ? (a, b) => a === b ? 0 : a - b : (a, b) => a === b ? 0 : collator.compare(a, b);
			const sign = way === "ascending" ? 1 : -1;
			const [there, missing] = [order.filter(i => key[i] !== ""), order.filter(i => key[i] === "")];
			order = there.sort((a, b) => sign * compare(key[a], key[b]) || a - b).concat(missing);
		}
		show();
	}

	// reveal makes sure that a row to which a link leads is in the table.
	function reveal(id) {
		const i = rows.findIndex(row => row.id === id);
		if (i < 0) {
			return;
		}
		if (!hits.includes(i)) {
			input.value = "";
			show();
		}
		fill(bodies[Math.floor(hits.indexOf(i) / perBody)]);
	}

	heads.forEach((head, column) => {
		const button = document.createElement("button");
		button.type = "button";
		button.append(...head.childNodes);
		head.append(button);
		button.addEventListener("click", () => sort(column));
	});
	input.addEventListener("focus", readTexts); // before the first key
	input.addEventListener("input", show);
	const sight = new IntersectionObserver(entries => entries.forEach(entry => entry.isIntersecting && fill(entry.target)));
	bodies.forEach(body => sight.observe(body));
	document.addEventListener("click", event => {
		const target = event.target.closest("a")?.getAttribute("href");
		if (target) {
			reveal(target.slice(1));
		}
	});
	count.value = `${rows.length} ${section.dataset.noun}`;
	find.hidden = false;
}

// number returns the exact value of a cell; one that is not finite is above all others,
// and none at all is "".
function number(cell) {
	const data = cell.querySelector("data");
	return data === null ? "" : data.value === "null" ? Infinity : Number(data.value);
}
