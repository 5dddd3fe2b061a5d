package names

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// listed is a line of a file of testdata: a tensor of one side and the rows of the
// other side's that it consists of.
type listed struct {
	tensor Tensor
	parts  string
}

// golden is a file of testdata: what real programs make of a model's tensors.
type golden struct {
	sides [2][]listed
}

func (g *golden) tensors(s Side) (list []Tensor) {
	for _, l := range g.sides[s] {
		list = append(list, l.tensor)
	}
	return list
}

// readGolden reads lines of side, name, shape and parts, and of two names and a
// shape where a tensor is only renamed.
func readGolden(t *testing.T, path string) *golden {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var g golden
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		if len(words) == 3 {
			shape := readShape(t, words[2])
			for side := range g.sides {
				all := Part{words[1-side], 0, rows(Tensor{Shape: shape})}
				g.sides[side] = append(g.sides[side], listed{Tensor{Name: words[side], Shape: shape}, shown([]Part{all})})
			}
			continue
		}
		if len(words) != 4 {
			t.Fatalf("%s: %q", path, lines.Text())
		}
		l := listed{tensor: Tensor{Name: words[1], Shape: readShape(t, words[2])}, parts: words[3]}
		side := ComfyUI
		if words[0] == "diffusers" {
			side = Diffusers
		}
		g.sides[side] = append(g.sides[side], l)
	}
	return &g
}

func readShape(t *testing.T, text string) (shape []int) {
	t.Helper()
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		shape = append(shape, n)
	}
	return shape
}

// shown is a part as the files have it.
func shown(parts []Part) string {
	var words []string
	for _, p := range parts {
		words = append(words, fmt.Sprintf("%s[%d:%d]", p.Source, p.From, p.To))
	}
	return strings.Join(words, " ")
}

func outputs(p *Plan) (lines []string) {
	for _, o := range p.Outputs {
		lines = append(lines, fmt.Sprintf("%s %v %s", o.Name, o.Shape, shown(o.Parts)))
	}
	slices.Sort(lines)
	return lines
}

func want(list []listed) (lines []string) {
	for _, l := range list {
		if l.parts != "" {
			lines = append(lines, fmt.Sprintf("%s %v %s", l.tensor.Name, l.tensor.Shape, l.parts))
		}
	}
	slices.Sort(lines)
	return lines
}

// TestRealPrograms: plans are what ComfyUI's and diffusers' own conversions make of
// the rows of every tensor, both ways.
func TestRealPrograms(t *testing.T) {
	files, err := filepath.Glob("testdata/*.tsv")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".tsv"), func(t *testing.T) {
			g := readGolden(t, path)
			for _, to := range []Side{ComfyUI, Diffusers} {
				p, err := Make(g.tensors(to.other()), to)
				if err != nil {
					t.Errorf("to %v: %v", to, err)
					continue
				}
				differs(t, outputs(p), want(g.sides[to]))
				kept, err := Make(g.tensors(to), to)
				if err != nil {
					t.Errorf("%v's own names: %v", to, err)
					continue
				}
				for _, o := range kept.Outputs {
					if !o.Renamed(rows(Tensor{Shape: o.Shape})) || o.Parts[0].Source != o.Name {
						t.Errorf("%v's own names: %s becomes %v", to, shown(o.Parts), o.Name)
					}
				}
			}
		})
	}
}

func differs(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range got {
		if _, ok := slices.BinarySearch(want, line); !ok {
			t.Errorf("got  %s", line)
		}
	}
	for _, line := range want {
		if _, ok := slices.BinarySearch(got, line); !ok {
			t.Errorf("want %s", line)
		}
	}
}

// TestPlanOf prints the plan of an inventory that the conformance script gives.
func TestPlanOf(t *testing.T) {
	path := os.Getenv("TENSORPRESS_NAMES_OF")
	if path == "" {
		t.Skip("for conformance/names/check.py")
	}
	g := readGolden(t, path)
	to := ComfyUI
	if len(g.sides[ComfyUI]) > 0 {
		to = Diffusers
	}
	p, err := Make(g.tensors(to.other()), to)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(p.Outputs, func(a, b Output) int { return cmp.Compare(a.Name, b.Name) })
	for _, o := range p.Outputs {
		fmt.Printf("plan\t%s\t%s\t%s\n", o.Name, strings.Trim(strings.ReplaceAll(fmt.Sprint(o.Shape), " ", ","), "[]"), shown(o.Parts))
	}
}
