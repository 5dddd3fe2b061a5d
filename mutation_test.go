package tensorpress_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
)

var (
	mutationCount = flag.Int("mutations", 0, "how many mutated models TestMutations tries, 0 for 900 (150 with -short), -1 for all")
	everyCase     = flag.Bool("all", false, "every case of the tests that take a share of them")
	mutationSeed  = flag.Int("mutation-seed", 1, "which ones")
)

// TestMutations holds the commands against each other over models that were
// damaged: what verify calls ok, every other command must read, to the same
// values; what one refuses, all must, with the same status, and leave nothing.
// All cases: go test . -run TestMutations -mutations -1. One case by its name:
// go test . -run 'TestMutations/MODEL/FIELD/MUTATION'.
func TestMutations(t *testing.T) {
	t.Parallel()
	all, cases := subjects(t), map[string][]mutation{}
	if testing.Short() && !named() { // models take time to make as well
		all = slices.DeleteFunc(all, func(s subject) bool { return chance(s.name)%8 > 0 })
	}
	images := map[string]*image{}
	for _, s := range all {
		images[s.name] = s.make(t)
		cases[s.name] = mutations(t, images[s.name])
	}
	chosen := choose(all, cases)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			trySubject(t, images[s.name], chosen[s.name])
		})
	}
}

// choose takes about as many cases as are asked for, by chance, of each model the
// same share, and one at least of each kind of mutation but with -short; all where the
// command names cases.
func choose(all []subject, cases map[string][]mutation) map[string][]mutation {
	n := *mutationCount
	switch {
	case n == 0 && named() || n < 0:
		return cases
	case n == 0 && testing.Short():
		n = 150
	case n == 0:
		n = 900
	}
	type one struct {
		subject string
		mutation
		chance uint64
	}
	var list []one
	for _, s := range all {
		for _, c := range cases[s.name] {
			list = append(list, one{s.name, c, chance(s.name, c.field, c.name)})
		}
	}
	slices.SortFunc(list, func(a, b one) int { return cmp.Compare(a.chance, b.chance) })
	chosen, kinds := map[string][]mutation{}, map[string]bool{}
	for _, o := range list {
		share := (len(cases[o.subject])*n + len(list) - 1) / len(list)
		if (kinds[o.name] || testing.Short()) && len(chosen[o.subject]) >= share {
			continue
		}
		kinds[o.name] = true
		chosen[o.subject] = append(chosen[o.subject], o.mutation)
	}
	return chosen
}

// named reports whether the command names cases.
func named() bool { return strings.Contains(flag.Lookup("test.run").Value.String(), "/") }

// chance is a number that follows from names and the seed.
func chance(names ...string) uint64 {
	h := sha256.Sum256(fmt.Appendf(nil, "%d %q", *mutationSeed, names))
	return binary.LittleEndian.Uint64(h[:])
}

// trySubject tries the cases of one model, by the fields that they change.
func trySubject(t *testing.T, m *image, cases []mutation) {
	slices.SortStableFunc(cases, func(a, b mutation) int { return strings.Compare(a.field, b.field) })
	before := ""
	for len(cases) > 0 {
		n := 1
		for n < len(cases) && cases[n].field == cases[0].field {
			n++
		}
		t.Run(cases[0].field, func(t *testing.T) {
			for _, c := range cases[:n] {
				t.Run(c.name, func(t *testing.T) {
					if before == "" && c.want == same {
						before = valuesHash(t, m)
					}
					tryCase(t, m, c, before)
				})
			}
		})
		cases = cases[n:]
	}
}

// valuesHash stands for what a model decodes to.
func valuesHash(t *testing.T, m *image) string {
	dir := t.TempDir()
	dest := filepath.Join(dir, "plain", "out")
	path := m.write(t, mkdir(t, dir, "in"))
	if !m.folder {
		dest += ".safetensors"
	}
	mkdir(t, dir, "plain")
	if _, err := tensorpress.Dequantize(t.Context(), files.Dir(path), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: "f32"}); err != nil {
		t.Fatal(err)
	}
	return weightsHash(t, dest)
}

// weightsHash is that of a file, or of the one in a folder.
func weightsHash(t *testing.T, path string) string {
	t.Helper()
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "model.safetensors")
	}
	return fixture.FileHash(t, path)
}

// weightsHash is that of the weights of all layers, of a file or of the one in a
// folder.
func (j *judge) weightsHash(path string) string {
	j.Helper()
	if j.folder {
		path = filepath.Join(path, "model.safetensors")
	}
	h := sha256.New()
	for _, l := range j.inspected.Layers {
		name := l.Name + ".weight"
		if l.Format == "mxfp4" && strings.HasSuffix(l.Tensors[0].Name, "_blocks") { // experts are parameters
			name = l.Name
		}
		body := fixture.Body(j.T, path, name)
		for i := 0; i+4 <= len(body); i += 4 { // F32, of which formats differ in the sign of zero
			if binary.LittleEndian.Uint32(body[i:]) == 1<<31 {
				body[i+3] = 0
			}
		}
		h.Write(body)
	}
	return string(h.Sum(nil))
}

func mkdir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// judge is one mutated model before the commands.
type judge struct {
	*testing.T
	dir, path string
	folder    bool
	verified  *report.Verification
	inspected *report.Inspection
	inspect   error
}

// allowance is a problem that verify reports of what can be read all the same.
type allowance struct{ problem, why string }

var allowances = []allowance{
	{"loaders will look for its scale", "the values are there; it is the config that misleads SDNQ's loaders"},
	{"loaders will not decode it", "the same: the config keeps a weight that is stored as codes"},
	{"of which there is no weight", "an entry of the header describes what is not there; all that is there is whole"},
}

// refusals are of models that verify calls ok, for what is to be made of them.
var refusals = []allowance{
	{"would both be written as", "a stray tensor has the name that a layer's companion will have in the output"},
	{"has the name of a part of layer", "the same, of a part that the layer has not"},
	{"its values alone are not its weight", "loaders multiply pre_quant_scale into activations: the layer is whole, its values are not the model's"},
}

func tryCase(t *testing.T, m *image, c mutation, before string) {
	mutated := m.clone()
	c.do(mutated)
	dir := t.TempDir()
	j := &judge{T: t, dir: dir, folder: m.folder}
	j.path = mutated.write(t, mkdir(t, dir, "in"))
	v, err := tensorpress.Verify(t.Context(), files.Dir(j.path), tensorpress.VerifyOptions{})
	if err != nil {
		t.Fatalf("verify fails: %v", err)
	}
	j.verified = v
	j.inspected, j.inspect = tensorpress.Inspect(t.Context(), files.Dir(j.path))
	j.compareProblems()
	j.sameAsItself()
	switch {
	case c.want == same && !v.OK:
		t.Errorf("verify: %+v, though nothing changed", v.Problems)
	case c.want == refused && v.OK:
		t.Errorf("verify finds nothing wrong")
	}
	if v.OK {
		j.allRead(before, c.want)
	} else {
		j.allRefuse()
	}
}

// compareProblems: inspect knows of the same layers that verify reports.
func (j *judge) compareProblems() {
	j.Helper()
	if j.inspect != nil {
		if j.verified.OK || status(j.inspect) != 3 {
			j.Errorf("inspect: %v; verify: %+v", j.inspect, j.verified.Problems)
		}
		return
	}
	var problems, reported []string
	for _, l := range j.inspected.Layers {
		if l.Problem != "" {
			problems = append(problems, l.Problem)
		}
	}
	for _, p := range j.verified.Problems {
		if p.Tensor != "" && !allowed(p.Problem, allowances) && !strings.Contains(p.Problem, "finite number") && !strings.Contains(p.Problem, "cannot be decoded") {
			reported = append(reported, p.Problem)
		}
	}
	slices.Sort(problems)
	slices.Sort(reported)
	if !slices.Equal(problems, reported) {
		j.Errorf("inspect says %q, verify %q", problems, reported)
	}
}

// sameAsItself: diff reads what inspect reads, however damaged its layers are.
func (j *judge) sameAsItself() {
	j.Helper()
	d, err := tensorpress.Diff(j.Context(), files.Dir(j.path), files.Dir(j.path), tensorpress.DiffOptions{Bytes: true})
	if status(err) != status(j.inspect) && status(err) != 3 || err == nil && !d.Same {
		j.Errorf("inspect: %v; diff with itself: %v, %+v", j.inspect, err, d)
	}
}

func allowed(problem string, list []allowance) bool {
	return slices.ContainsFunc(list, func(a allowance) bool { return strings.Contains(problem, a.problem) })
}

// status is that of the command that ends with an error.
func status(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, tensorpress.ErrUsage):
		return 2
	case errors.Is(err, tensorpress.ErrSource):
		return 3
	}
	return 1
}

// command is one that makes an output of a model.
type command struct {
	name string
	run  func(ctx context.Context, source, dest string) (*report.Report, error)
}

var nothingKept = tensorpress.Options{Preset: "none", MinNumel: fixture.Ptr(0), MinChannels: fixture.Ptr(0)}

// moving is a transcoding.
func moving(o tensorpress.TranscodeOptions) func(ctx context.Context, source, dest string) (*report.Report, error) {
	return func(ctx context.Context, source, dest string) (*report.Report, error) {
		return tensorpress.Transcode(ctx, files.Dir(source), files.Dir(dest), o)
	}
}

var (
	dequantizing = command{"dequantize", func(ctx context.Context, source, dest string) (*report.Report, error) {
		return tensorpress.Dequantize(ctx, files.Dir(source), files.Dir(dest), tensorpress.DequantizeOptions{Dtype: "f32"})
	}}
	quantizing = command{"quantize", func(ctx context.Context, source, dest string) (*report.Report, error) {
		o := nothingKept
		o.Layout, o.Layer.Dtype = "comfy", "int8_tensorwise"
		return tensorpress.Quantize(ctx, files.Dir(source), files.Dir(dest), o)
	}}
	quantizingSDNQ = command{"quantize --layout sdnq", func(ctx context.Context, source, dest string) (*report.Report, error) {
		o := nothingKept
		o.Layout, o.Layer.Dtype = "sdnq", "uint4"
		return tensorpress.Quantize(ctx, files.Dir(source), files.Dir(dest), o)
	}}
	planning = command{"plan", func(ctx context.Context, source, dest string) (*report.Report, error) {
		o := nothingKept
		o.Layout, o.Layer.Dtype = "comfy", "int8_tensorwise"
		return tensorpress.Plan(ctx, files.Dir(source), files.Dir(dest), o)
	}}
	migrating = command{"migrate", func(ctx context.Context, source, dest string) (*report.Report, error) {
		return tensorpress.Migrate(ctx, files.Dir(source), files.Dir(dest), tensorpress.MigrateOptions{})
	}}
)

// transcodings are those that mean something for a layout.
func transcodings(layout string) []tensorpress.TranscodeOptions {
	switch layout {
	case "sdnq":
		return []tensorpress.TranscodeOptions{{Layout: "comfy", Rename: true}, {Layout: "comfy", Scale: "row"}}
	case "comfy":
		return []tensorpress.TranscodeOptions{{Layout: "sdnq"}, {Layout: "comfy", Scale: "row"}}
	}
	return []tensorpress.TranscodeOptions{{Layout: "sdnq"}}
}

// do runs a command; nothing may be left of one that fails.
func (j *judge) do(c command) (dest string, r *report.Report, err error) {
	j.Helper()
	dir := mkdir(j.T, j.dir, "out")
	for _, name := range names(j.T, dir) {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			j.Fatal(err)
		}
	}
	dest = filepath.Join(dir, "made")
	if !j.folder {
		dest += ".safetensors"
	}
	r, err = c.run(j.Context(), j.path, dest)
	if left := names(j.T, dir); err != nil && len(left) > 0 {
		j.Errorf("%s leaves %v", c.name, left)
	}
	if err != nil && strings.Contains(err.Error(), "internal error") {
		j.Errorf("%s: %v", c.name, err)
	}
	return dest, r, err
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// allRead: all commands read what verify calls ok, to the same values.
func (j *judge) allRead(before string, want outcome) {
	j.Helper()
	plain, _, err := j.do(dequantizing)
	if len(j.inspected.Layers) == 0 {
		j.noneQuantized()
		return
	}
	if err != nil {
		j.fails("dequantize", err)
		return
	}
	hash := j.weightsHash(plain)
	if want == same && weightsHash(j.T, plain) != before {
		j.Errorf("decodes to other values")
	}
	j.sameValues(plain)
	for _, c := range []command{quantizing, quantizingSDNQ, planning} {
		if _, _, err := j.do(c); err != nil {
			j.fails(c.name, err)
		}
	}
	for _, o := range transcodings(j.inspected.Layout) {
		j.moves(o, hash)
	}
	j.migrates(hash)
	j.keeps(hash)
	j.joins()
}

// joins: a file that is joined from one is the same, to the byte of every tensor, and what
// describes its layers: where that is the config, a note says that it has to go with it.
func (j *judge) joins() {
	j.Helper()
	dest, _, err := j.do(command{"join", func(ctx context.Context, source, dest string) (*report.Report, error) {
		dest = strings.TrimSuffix(dest, ".safetensors") + ".safetensors"
		_, err := tensorpress.Join(ctx, []tensorpress.JoinPart{{Source: files.Dir(source)}}, files.Dir(dest), tensorpress.JoinOptions{})
		return nil, err
	}})
	switch {
	case err != nil && j.inspected.Layout == "sdnq" && status(err) == 2:
		return
	case err != nil:
		j.fails("join", err)
		return
	}
	dest = strings.TrimSuffix(dest, ".safetensors") + ".safetensors"
	if config, err := os.ReadFile(filepath.Join(j.path, "config.json")); err == nil {
		if err := os.WriteFile(filepath.Join(filepath.Dir(dest), "config.json"), config, 0o666); err != nil {
			j.Error(err)
		}
	}
	d, err := tensorpress.Diff(j.Context(), files.Dir(j.path), files.Dir(dest), tensorpress.DiffOptions{})
	if err != nil || !d.Same {
		j.Errorf("join makes other values: %+v, %v", d, err)
	}
}

// keeps: layers that quantize keeps stay what they are, in the same layout.
func (j *judge) keeps(hash string) {
	j.Helper()
	o := nothingKept
	o.Keep, o.Layout = []string{"."}, j.inspected.Layout
	if o.Layout != "sdnq" {
		o.Layout = "comfy"
	}
	dest, r, err := j.do(command{"quantize --keep .", func(ctx context.Context, source, dest string) (*report.Report, error) {
		return tensorpress.Quantize(ctx, files.Dir(source), files.Dir(dest), o)
	}})
	switch {
	case err != nil:
		j.fails("quantize --keep .", err)
	case !slices.ContainsFunc(r.Layers, func(l report.Layer) bool { return strings.Contains(l.Reason, "restored from") }):
		j.outputIs("quantize --keep .", dest, hash, true)
	}
}

// noneQuantized: where no layer is quantized, commands that are for such models
// say so.
func (j *judge) noneQuantized() {
	j.Helper()
	for _, c := range []command{dequantizing, {"transcode", moving(tensorpress.TranscodeOptions{Layout: "sdnq"})}, migrating} {
		if _, _, err := j.do(c); status(err) != 3 || !strings.Contains(err.Error(), "holds no quantized layer") {
			j.Errorf("no layer is quantized; %s: %v", c.name, err)
		}
	}
	for _, c := range []command{quantizing, quantizingSDNQ} {
		if _, _, err := j.do(c); err != nil {
			j.fails(c.name, err)
		}
	}
}

// fails reports a command that does not read what verify calls ok, unless it
// is of the refusals that are right.
func (j *judge) fails(name string, err error) {
	j.Helper()
	if status(err) == 3 && allowed(err.Error(), refusals) {
		return
	}
	j.Errorf("verify is ok; %s gives status %d: %v", name, status(err), err)
}

// sameValues: verify decodes to what dequantize writes.
func (j *judge) sameValues(plain string) {
	j.Helper()
	v, err := tensorpress.Verify(j.Context(), files.Dir(j.path), tensorpress.VerifyOptions{Source: files.Dir(plain), MaxRelMSE: fixture.Ptr(0.0)})
	if err != nil || !v.OK {
		j.Errorf("differs from what dequantize makes of it: %+v, %v", v, err)
	}
	if d, err := tensorpress.Diff(j.Context(), files.Dir(plain), files.Dir(j.path), tensorpress.DiffOptions{}); err != nil || !d.Same {
		j.Errorf("diff with what dequantize makes of it: %+v, %v", d, err)
	}
}

// moves transcodes, layers again that cannot move, and compares the values where
// moving is exact.
func (j *judge) moves(o tensorpress.TranscodeOptions, hash string) {
	j.Helper()
	name := fmt.Sprintf("transcode --layout %s --rename=%v", o.Layout, o.Rename)
	dest, r, err := j.do(command{name, moving(o)})
	if status(err) == 2 && strings.Contains(err.Error(), "there is nothing to move") {
		return
	}
	if status(err) == 2 && strings.Contains(err.Error(), "cannot move") && !o.Rename {
		o.Requantize = true
		name += " --requantize"
		dest, r, err = j.do(command{name, moving(o)})
	}
	if err != nil {
		j.fails(name, err)
		return
	}
	if !slices.ContainsFunc(r.Layers, func(l report.Layer) bool { return l.Action == "move" || l.Action == "requantize" }) {
		return // all were restored
	}
	j.outputIs(name, dest, hash, exact(r))
}

// exact reports whether all layers were moved as they are, to the same values:
// rotations are undone in another order of sums elsewhere.
func exact(r *report.Report) bool {
	return !slices.ContainsFunc(r.Layers, func(l report.Layer) bool {
		_, convrot := l.Options.Get("convrot_groupsize")
		_, hadamard := l.Options.Get("hadamard_group_size")
		return l.Figures != nil || l.Action == "requantize" || l.Action == "dequantize" || l.Action == "move" && (convrot || hadamard)
	})
}

// outputIs: an output verifies, and decodes to the same values, or nearly so.
func (j *judge) outputIs(name, dest, hash string, exact bool) {
	j.Helper()
	v, err := tensorpress.Verify(j.Context(), files.Dir(dest), tensorpress.VerifyOptions{})
	switch {
	case err != nil || !v.OK:
		j.Errorf("%s makes %+v, %v", name, v, err)
		return
	case !exact:
		return
	}
	again := filepath.Join(j.dir, "out", "again")
	if !j.folder {
		again += ".safetensors"
	}
	_, err = tensorpress.Dequantize(j.Context(), files.Dir(dest), files.Dir(again), tensorpress.DequantizeOptions{Dtype: "f32"})
	switch {
	case err != nil:
		j.Errorf("%s makes what dequantize does not read: %v", name, err)
	case j.weightsHash(again) != hash:
		j.Errorf("%s makes other values", name)
	}
}

// migrates: what can be described in ComfyUI's words keeps its values.
func (j *judge) migrates(hash string) {
	j.Helper()
	dest, _, err := j.do(migrating)
	switch {
	case err == nil:
		j.outputIs("migrate", dest, hash, true)
	case status(err) == 2, strings.Contains(err.Error(), "cannot be described without changing their weights"):
	default:
		j.Errorf("verify is ok; migrate: %v", err)
	}
}

// allRefuse: no command takes what verify refuses, but for the kinds of
// problems that are listed.
func (j *judge) allRefuse() {
	j.Helper()
	readable := !slices.ContainsFunc(j.verified.Problems, func(p report.Problem) bool { return !allowed(p.Problem, allowances) })
	if readable {
		return
	}
	commands := []command{dequantizing, quantizing, quantizingSDNQ}
	layout := ""
	if j.inspect == nil {
		layout = j.inspected.Layout
	}
	for _, o := range transcodings(layout) {
		o.Requantize = true
		commands = append(commands, command{"transcode --layout " + o.Layout, moving(o)})
	}
	for _, c := range commands {
		_, _, err := j.do(c)
		if status(err) == 2 && j.onlyValues() && strings.Contains(err.Error(), "there is nothing to move") {
			continue // which no value was read for
		}
		if status(err) != 3 {
			j.Errorf("verify: %+v; %s gives status %d: %v", j.verified.Problems, c.name, status(err), err)
		}
	}
	if _, _, err := j.do(planning); status(err) != 3 && !(err == nil && j.onlyValues()) {
		j.Errorf("verify: %+v; plan gives status %d: %v", j.verified.Problems, status(err), err)
	}
}

// onlyValues reports whether all that is wrong are values, which plans do not
// read.
func (j *judge) onlyValues() bool {
	return !slices.ContainsFunc(j.verified.Problems, func(p report.Problem) bool {
		return !strings.Contains(p.Problem, "finite number") && !strings.Contains(p.Problem, "cannot be decoded")
	})
}
