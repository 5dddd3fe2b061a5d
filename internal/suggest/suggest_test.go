package suggest

import (
	"slices"
	"testing"
)

func TestEdits(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0},
		{"dtpye", "dtype", 1}, {"flot8", "float8", 1}, {"fluks", "flux", 2},
		{"ab", "ba", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3},
	} {
		if got := edits(tt.a, tt.b); got != tt.want {
			t.Errorf("edits(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := edits(tt.b, tt.a); got != tt.want {
			t.Errorf("edits(%q, %q) = %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	known := []string{"int8_tensorwise", "int8_blockwise", "float8_e4m3fn", "float8_e4m3fn_rowwise", "uint4", "group-size"}
	for word, want := range map[string][]string{
		"int8tensorwise": {"int8_tensorwise"},
		"flot8_e4m3fn":   {"float8_e4m3fn"},
		"UINT4":          {"uint4"},
		"group_size":     {"group-size"},
		"photoshop":      nil,
		"":               nil,
		"x":              nil,
	} {
		if got := Words(word, known); !slices.Equal(got, want) {
			t.Errorf("Words(%q) = %q, want %q", word, got, want)
		}
	}
	if got := Words("abcx", []string{"abca", "abcb", "abcc", "abcd", "abca"}); len(got) != most {
		t.Errorf("got %q, want %d words", got, most)
	}
}

func TestHint(t *testing.T) {
	known := []string{"ab1", "ab2", "ab3", "zz"}
	for word, want := range map[string]string{
		"zx":     ", did you mean zz?",
		"zz_top": ": there are ab1, ab2, ab3 and zz",
		"ab4":    ", did you mean ab1, ab2 or ab3?",
		"q":      ": there are ab1, ab2, ab3 and zz",
	} {
		if got := HintOrAll(word, known); got != want {
			t.Errorf("HintOrAll(%q) = %q, want %q", word, got, want)
		}
	}
}

// TestRelated: who types more or less than a word, at its end, meant that word.
func TestRelated(t *testing.T) {
	known := []string{"memory", "preset", "skip-keys", "convrot_w4a4", "for"}
	for word, want := range map[string]string{
		"memory-limit": ", did you mean memory?", "skip": ", did you mean skip-keys?", "convrot": ", did you mean convrot_w4a4?",
		"for-app": ", did you mean for?", "formal": "", "ski": "",
	} {
		if got := Hint(word, known); got != want {
			t.Errorf("Hint(%q) = %q, want %q", word, got, want)
		}
	}
}
