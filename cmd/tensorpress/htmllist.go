package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// list is a table of the page that may have many rows. A script makes it searchable and
// sortable; without scripts it is there in the order of the file.
type list struct {
	id, title string
	noun      string // what the rows are, for their count
	anchor    string // begins the rows' ids, "" where nothing links to them
	columns   []listColumn
	rows      [][]listCell
}

type listColumn struct {
	name   string
	number bool
	width  int // of the widest cell, in characters; 0 where all are empty
}

// listCell is a text, and the exact value where the text is short for it.
type listCell struct{ text, exact string }

func (c listCell) html() string {
	if c.exact == "" {
		return esc(c.text)
	}
	return "<data value=\"" + esc(c.exact) + "\">" + esc(c.text) + "</data>"
}

// newList returns a list without rows. A column whose name ends in # is one of numbers.
func newList(id, title, noun string, columns ...string) *list {
	l := &list{id: id, title: title, noun: noun}
	for _, name := range columns {
		name, number := strings.CutSuffix(name, "#")
		l.columns = append(l.columns, listColumn{name: name, number: number})
	}
	return l
}

func (l *list) add(cells ...listCell) {
	for i, c := range cells {
		l.columns[i].width = max(l.columns[i].width, utf8.RuneCountInString(c.text))
	}
	l.rows = append(l.rows, cells)
}

// style returns the widths of the columns as CSS. Those that are wide share the screen.
func (l *list) style() string {
	const wide = 30
	var widths []string
	for i, c := range l.columns {
		n := c.width
		if !c.number { // letters are narrower than digits, by which a browser counts
			n = (n*85 + 99) / 100
		}
		n = max(n, len(c.name)+3) // and an arrow
		switch {
		case c.width == 0:
		case n <= wide:
			widths = append(widths, fmt.Sprintf("calc(%dch + 1.6em)", n))
		case i == 0:
			widths = append(widths, fmt.Sprintf("min(%dch + 1.6em, max(15em, 48vw), 44em)", n))
		default:
			widths = append(widths, fmt.Sprintf("min(%dch + 1.6em, 28em)", n))
		}
	}
	if len(widths) == 0 {
		return ""
	}
	return fmt.Sprintf("#%[1]s table { width: calc(%[2]s) }\n#%[1]s tr { grid-template-columns: %[3]s }\n", l.id, strings.Join(widths, " + "), strings.Join(widths, " "))
}

// rowsOfBody are the rows of each tbody, which page.js and page.css rely on.
const rowsOfBody = 100

func (l *list) write(b *strings.Builder) {
	if len(l.rows) == 0 {
		return
	}
	class := "list"
	if len(l.rows) > rowsOfBody {
		class = "list long"
	}
	fmt.Fprintf(b, "<section class=\"%s\" id=\"%s\" data-noun=\"%s\">\n<h2>%s</h2>\n", class, l.id, l.noun, l.title)
	fmt.Fprintf(b, "<p class=\"find\" hidden=\"hidden\"><label>Search <input type=\"search\" autocomplete=\"off\" spellcheck=\"false\" placeholder=\"words of a name, a dtype, a shape\"/></label> <output></output></p>\n")
	fmt.Fprintf(b, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%s\">\n<table>\n<thead><tr>", l.title)
	for _, c := range l.columns {
		if c.width > 0 {
			fmt.Fprintf(b, "<th%s>%s</th>", c.class(), c.name)
		}
	}
	b.WriteString("</tr></thead>\n")
	for i, cells := range l.rows {
		if i%rowsOfBody == 0 {
			b.WriteString("<tbody>")
		}
		l.writeRow(b, i, cells)
		if i%rowsOfBody == rowsOfBody-1 || i == len(l.rows)-1 {
			b.WriteString("</tbody>\n")
		}
	}
	b.WriteString("</table>\n</div>\n</section>\n")
}

func (l *list) writeRow(b *strings.Builder, i int, cells []listCell) {
	if l.anchor != "" {
		fmt.Fprintf(b, "<tr id=\"%s%d\">", l.anchor, i)
	} else {
		b.WriteString("<tr>")
	}
	for j, c := range cells {
		if column := l.columns[j]; column.width > 0 {
			b.WriteString("<td" + column.class() + ">" + c.html() + "</td>")
		}
	}
	b.WriteString("</tr\n>") // a break between rows would be one more thing to keep for each
}

func (c listColumn) class() string {
	if c.number {
		return " class=\"n\""
	}
	return ""
}
