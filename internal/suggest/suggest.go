// Package suggest finds the known words that somebody may have meant by an
// unknown one.
package suggest

import (
	"slices"
	"strings"
)

// most is how many words are suggested at most.
const most = 3

// Words returns the known words with the fewest edits from an unknown one, none
// where all are too far from it. Case and the choice between - and _ are no
// edits. Of a long word, those that go on where it ends are nearer than others.
func Words(word string, known []string) (near []string) {
	word = plain(word)
	least := max(1, (len(word)+1)/3)
	for _, k := range known {
		switch n := edits(word, plain(k)); {
		case n > least || n >= len(word):
		case n < least:
			near, least = []string{k}, n
		case !slices.Contains(near, k):
			near = append(near, k)
		}
	}
	if grown := extending(word, near); len(grown) > 0 && len(word) > 2*enough {
		near = grown
	}
	return near[:min(len(near), most)]
}

// extending are the words that begin with a plain one.
func extending(word string, known []string) (found []string) {
	for _, k := range known {
		if len(word) >= enough && strings.HasPrefix(plain(k), word) && !slices.Contains(found, k) {
			found = append(found, k)
		}
	}
	return found
}

// enough letters tell a word by its beginning.
const enough = 4

// Related returns the few known words that begin with an unknown one, else the
// longest that is its beginning up to a _.
func Related(word string, known []string) []string {
	word = plain(word)
	if grown := extending(word, known); len(grown) > 0 && len(grown) <= most {
		return grown
	}
	longest := ""
	for _, k := range known {
		if len(k) > max(len(longest), 2) && strings.HasPrefix(word, plain(k)+"_") {
			longest = k
		}
	}
	if longest == "" {
		return nil
	}
	return []string{longest}
}

// Hint is what follows an error about an unknown word: ", did you mean a or b?",
// or nothing.
func Hint(word string, known []string) string {
	near := Words(word, known)
	if len(near) == 0 {
		near = Related(word, known)
	}
	return Ask(near)
}

// Ask asks whether one of some words was meant; it is "" for none.
func Ask(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return ", did you mean " + list(words, "or") + "?"
}

// list joins words, the last by another.
func list(words []string, joint string) string {
	last := len(words) - 1
	if last <= 0 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " " + joint + " " + words[last]
}

// HintOrAll is [Hint], or all of few words where none is near.
func HintOrAll(word string, known []string) string {
	if hint := Hint(word, known); hint != "" {
		return hint
	}
	return ": there are " + list(known, "and")
}

func plain(word string) string { return strings.ReplaceAll(strings.ToLower(word), "-", "_") }

// edits is the least number of letters to insert, drop, replace or swap with
// their neighbour that makes b of a: the optimal string alignment distance.
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			same := 1
			if a[i] == b[j] {
				same = 0
			}
			row[j+1] = min(last[j]+same, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
