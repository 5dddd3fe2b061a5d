package convert

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/shards"
	"github.com/tensorpress/tensorpress/internal/source"
)

// Version is the program's, which a work folder is of; "" for a library's.
var Version string

// shardPlan is what all runs for the output have in common. It is made before the plans of
// the models are narrowed to a part.
func (j *job) shardPlan() (*shards.Plan, error) {
	p := &shards.Plan{
		Format: shards.Format, Version: Version, Options: said(j.asked.Options), Shards: j.shardFiles(), Stems: map[string]string{}, Parts: j.asked.Parts,
	}
	for _, one := range j.Models {
		p.Stems[one.Folder] = one.Checkpoint.Stem()
	}
	for _, f := range j.listed.All {
		p.Others = append(p.Others, shards.File{Name: f.Name, Bytes: f.Bytes})
	}
	var err error
	if p.Source, err = j.sourcePrint(); err != nil {
		return nil, err
	}
	p.Settings = j.settingsPrint()
	if l := j.loading(true); l != nil {
		p.Next, err = json.Marshal(l)
	}
	return p, err
}

// sourcePrint is the fingerprint of the source, from its headers and from what tells files
// that have changed: no weights are read.
func (j *job) sourcePrint() (string, error) {
	h := sha256.New()
	for _, line := range j.Stamps() {
		fmt.Fprintln(h, line)
	}
	for _, one := range j.Models {
		addHeader(h, one)
	}
	return text(h), nil
}

// settingsPrint is the fingerprint of all that is decided: the steps, the headers, the files
// beside them, and adapters.
func (j *job) settingsPrint() string {
	h := sha256.New()
	for _, one := range j.Models {
		fmt.Fprintf(h, "model %q\n", one.Folder)
		addPlan(h, one.Plan)
	}
	for _, f := range j.listed.All {
		fmt.Fprintf(h, "beside %q %d %x\n", f.Name, f.Bytes, sha256.Sum256(f.Text))
	}
	for _, text := range j.asked.Lora {
		_, strength, _ := strings.Cut(filepath.Base(text), "=")
		fmt.Fprintf(h, "adapter %q\n", strength)
	}
	for _, f := range j.adapters.Files() {
		stamp := ""
		if info, err := f.Stat(f.Path); err == nil { // else reading it says what is wrong
			stamp = source.Stamp(info)
		}
		fmt.Fprintf(h, "%q %s\n", filepath.Base(f.Path), stamp)
	}
	return text(h)
}

func text(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// addPlan covers all by which bytes are made.
func addPlan(h hash.Hash, p *plan.Plan) {
	fmt.Fprintf(h, "%s %v\n", p.Layout.Name, p.AllowNonfinite)
	settings := shared[codec.Settings]{text: func(s *codec.Settings) string { return fmt.Sprintf("%+v", *s) }}
	var line []byte // there are many
	for i := range p.Steps {
		s := &p.Steps[i]
		line = strconv.AppendQuote(line[:0], s.Source.Name)
		line = append(append(append(line, s.Action...), ' '), s.Dtype...)
		line = strconv.AppendBool(line, s.NoMatmul)
		line = strconv.AppendInt(line, int64(len(s.Copies)), 10)
		line = append(line, settings.of(s.Settings)...)
		if len(s.Moments) > 0 {
			sum := sha256.New()
			binary.Write(sum, binary.LittleEndian, s.Moments) // to a hash
			line = append(line, text(sum)...)
		}
		h.Write(append(line, '\n'))
	}
	for _, l := range p.Literals {
		line = strconv.AppendQuote(line[:0], l.Name)
		h.Write(append(append(line, l.Data...), '\n'))
	}
	for _, f := range p.Files { // with the names and the places of what the steps write
		fmt.Fprintf(h, "%q\n", f.Name)
		f.Header.WriteTo(h)
	}
}

// shared are texts of what layers share.
type shared[T any] struct {
	text  func(*T) string
	known map[*T]string
}

func (s *shared[T]) of(one *T) string {
	if one == nil {
		return ""
	}
	text, ok := s.known[one]
	if !ok {
		if s.known == nil {
			s.known = map[*T]string{}
		}
		text = s.text(one)
		s.known[one] = text
	}
	return text
}

// unkept are options that say how a run goes, and nothing of what it makes.
var unkept = []string{"Force", "Measure", "Hash", "Measured", "Threads", "Memory", "Progress", "Resume", "Part", "Parts"}

// said are fingerprints of the options that were given, to say which differ: their values
// may be paths, or addresses with a token.
func said(o Options) map[string]string {
	all := map[string]string{}
	v := reflect.ValueOf(o)
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Name, v.Field(i)
		if field.IsZero() || slices.Contains(unkept, name) {
			continue
		}
		value := field.Interface()
		if s, ok := value.(files.Source); ok {
			value = path.Base(s.String())
		}
		if name == "Layer" { // each of them has a flag of its own
			addLayer(all, field)
			continue
		}
		all[name] = printOf(value)
	}
	return all
}

func addLayer(all map[string]string, layer reflect.Value) {
	for i := range layer.NumField() {
		if f := layer.Field(i); !f.IsZero() {
			all[layer.Type().Field(i).Name] = printOf(f.Interface())
		}
	}
}

func printOf(value any) string {
	text, _ := json.Marshal(value) // what has no JSON is the same for all
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// shardsRead are those of the source that a plan's steps read.
func shardsRead(p *plan.Plan) map[int]bool {
	read := map[int]bool{}
	add := func(shard int) { read[shard] = true }
	for i := range p.Steps {
		s := &p.Steps[i]
		s.Source.EachShard(add)
		if s.From != nil {
			for k := range s.From.Parts {
				s.From.Parts[k].EachShard(add)
			}
		}
		for k := range s.Copies {
			s.Copies[k].Source.EachShard(add)
		}
	}
	return read
}
