package names

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// block is rules for names that begin alike.
type block struct {
	// under are beginnings, P where both sides have the same, else P=Q, ComfyUI's
	// first; "" for none.
	under string
	// lines are rules, one a line. A and B are layers, tensors, or, with a dot at
	// the end, beginnings of names; # stands for a number, $ for the highest that
	// there is at its place.
	//
	//	A              both sides call it so
	//	A = B          A is ComfyUI's name, B diffusers'
	//	A = B + C      A is the rows of B, then those of C, as many of each;
	//	               with :c, as many as it has columns
	//	A ~ B          the halves of its rows change places
	//	A ^ B          A is a convolution of one place, B a matrix
	//	A % B          A and B are matrices in one tensor, whose rows are the other's columns
	//	A <@ B         A is B with every number in place of @, one after the other in one
	//	               tensor; on the way to ComfyUI alone
	//	A <@ B + C     each of them is a row of B, one of C, the next of B and so on
	//	A <- B         read so on the way to ComfyUI alone
	//	A -> B         read so on the way to diffusers alone; without B it is left out
	//	- <- B         ComfyUI has no such tensor: it is left out
	//	*              all others have the same name
	lines string
}

// rule is a line of a table. The first that a name matches counts.
type rule struct {
	comfy     pattern
	diffusers []pattern // in the order of their rows; none where it is left out
	none      bool      // ComfyUI has no such tensor
	columns   []bool    // which have as many rows as columns, else nil
	swap      bool
	flat      bool
	turned    bool // rows and columns of matrices change places
	stack     bool // matrices, or rows, of several become one tensor of them
	only      bool // towards one side
	to        Side
}

var errRows = errors.New("its rows do not divide as the others' do")

// sizes are the rows of the pieces.
func (r *rule) sizes(rows, columns int) ([]int, error) {
	sizes := make([]int, len(r.diffusers))
	shares, rest := len(sizes), rows
	for i := range sizes {
		if r.columns != nil && r.columns[i] {
			sizes[i] = columns
			rest -= columns
			shares--
		}
	}
	if r.swap {
		shares = 2
	}
	if rest < 0 || shares > 0 && rest%shares != 0 || shares == 0 && rest != 0 || r.columns != nil && columns == 0 {
		return nil, errRows
	}
	for i := range sizes {
		switch {
		case r.swap:
			sizes[i] = rest
		case sizes[i] == 0:
			sizes[i] = rest / shares
		}
	}
	return sizes, nil
}

// alternate is how many parts have rows in turn, 0 for none.
func (r *rule) alternate() int {
	if !r.stack || len(r.diffusers) < 2 {
		return 0
	}
	return len(r.diffusers)
}

// match finds which piece of a rule a name is.
func (r *rule) match(name string, from Side) (piece int, at match, ok bool) {
	if r.only && r.to == from {
		return 0, match{}, false
	}
	if from == ComfyUI {
		at, ok = r.comfy.match(name)
		return 0, at, ok && (!r.turned || at.rest == "")
	}
	for i := range r.diffusers {
		if at, ok = r.diffusers[i].match(name); ok && (!r.turned || at.rest == "") {
			if r.stack {
				i += at.expert * len(r.diffusers)
			}
			return i, at, true
		}
	}
	return 0, match{}, false
}

// pattern is a name with places for numbers.
type pattern struct {
	text  string
	words []string // between dots; nil for the star
	open  bool     // the beginning of names
}

// match is what stands in the places of a pattern, and what follows it.
type match struct {
	numbers []string
	expert  int // in place of @
	rest    string
}

func newPattern(text string) pattern {
	if text == "*" {
		return pattern{text: text, open: true}
	}
	trimmed, open := strings.CutSuffix(text, ".")
	return pattern{text, strings.Split(trimmed, "."), open}
}

// ends are what may follow the name of a layer.
var ends = []string{"", ".weight", ".bias"}

func (p *pattern) match(name string) (m match, ok bool) {
	rest := name
	for i, word := range p.words {
		if i > 0 {
			if rest, ok = strings.CutPrefix(rest, "."); !ok {
				return match{}, false
			}
		}
		got, _, _ := strings.Cut(rest, ".")
		if word == "#" && isNumber(got) {
			m.numbers = append(m.numbers, got)
		} else if n, err := strconv.ParseUint(got, 10, 16); word == "@" && err == nil && strconv.FormatUint(n, 10) == got {
			m.expert = int(n)
		} else if word != got {
			return match{}, false
		}
		rest = rest[len(got):]
	}
	m.rest = rest
	if p.open {
		return m, p.words == nil || rest != ""
	}
	return m, slices.Contains(ends, rest)
}

// fill is the name that a pattern makes of what another has matched.
func (p *pattern) fill(m match) string {
	if p.words == nil {
		return m.rest
	}
	words := slices.Clone(p.words)
	next := 0
	for i, word := range words {
		switch word {
		case "#":
			words[i] = m.numbers[next]
			next++
		case "@":
			words[i] = strconv.Itoa(m.expert)
		}
	}
	return strings.Join(words, ".") + m.rest
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

// inventory is the names of a model, without what stands before all of them.
type inventory struct {
	tensors map[string]Tensor // by their whole names
	// begun are the names, and the beginnings of names up to a dot.
	begun map[string]bool
}

func newInventory(tensors []Tensor, prefix string) *inventory {
	v := &inventory{map[string]Tensor{}, map[string]bool{}}
	for _, t := range tensors {
		v.tensors[t.Name] = t
		short, ok := strings.CutPrefix(t.Name, prefix)
		if !ok {
			continue
		}
		v.begun[short] = true
		for i, c := range short {
			if c == '.' {
				v.begun[short[:i+1]] = true
			}
		}
	}
	return v
}

// count is how many numbers from 0 on follow a beginning.
func (v *inventory) count(beginning string) (n int) {
	for v.begun[beginning+strconv.Itoa(n)+"."] {
		n++
	}
	return n
}

// compile reads the lines of blocks; $ is resolved by the names of a side.
func compile(blocks []block, v *inventory, side Side) (rules []rule) {
	for _, b := range blocks {
		unders := strings.Fields(b.under)
		if b.under == "" {
			unders = []string{""}
		}
		for _, under := range unders {
			under, there := v.highest(under, side)
			if !there {
				continue
			}
			comfy, diffusers := sides(under)
			for line := range strings.Lines(b.lines) {
				if line = strings.TrimSpace(line); line != "" {
					rules = append(rules, newRule(line, comfy, diffusers))
				}
			}
		}
	}
	return rules
}

// sides are the beginnings of either side's names.
func sides(under string) (comfy, diffusers string) {
	comfy, diffusers, differ := strings.Cut(under, "=")
	if !differ {
		return comfy, comfy
	}
	return comfy, diffusers
}

// highest puts the highest number that there is in place of $; there is none where a
// model has no such blocks.
func (v *inventory) highest(under string, side Side) (resolved string, there bool) {
	comfy, diffusers := sides(under)
	mine := comfy
	if side == Diffusers {
		mine = diffusers
	}
	before, _, open := strings.Cut(mine, "$")
	if !open {
		return under, true
	}
	n := v.count(before)
	return strings.ReplaceAll(under, "$", strconv.Itoa(n-1)), n > 0
}

// newRule reads a line; a table that does not read is a mistake in the program.
func newRule(line, comfy, diffusers string) rule {
	words := strings.Fields(line)
	r := rule{none: words[0] == "-", comfy: newPattern(comfy + words[0])}
	if len(words) == 1 {
		r.diffusers = []pattern{newPattern(diffusers + words[0])}
		return r
	}
	switch words[1] {
	case "=":
	case "~":
		r.swap = true
	case "^":
		r.flat = true
	case "%":
		r.turned = true
	case "<@":
		r.stack, r.only, r.to = true, true, ComfyUI
	case "<-":
		r.only, r.to = true, ComfyUI
	case "->":
		r.only, r.to = true, Diffusers
	default:
		panic(fmt.Sprintf("names: %q is no rule", line))
	}
	for i, word := range words[2:] {
		if i%2 == 1 {
			if word != "+" {
				panic(fmt.Sprintf("names: %q is no rule", line))
			}
			continue
		}
		name, columns := strings.CutSuffix(word, ":c")
		r.diffusers = append(r.diffusers, newPattern(diffusers+name))
		r.columns = append(r.columns, columns)
	}
	if !slices.Contains(r.columns, true) {
		r.columns = nil
	}
	return r
}
