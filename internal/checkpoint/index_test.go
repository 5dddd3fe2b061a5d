package checkpoint

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseIndexRefuses(t *testing.T) {
	file := func(name string) string { return `{"weight_map":{"a":"` + name + `"}}` }
	tests := []struct{ name, index, want string }{
		{"empty", ``, `malformed JSON: unexpected EOF`},
		{"cut off", `{"weight_map":{`, `malformed JSON`},
		{"not JSON", `weights`, `malformed JSON`},
		{"text after", file("x.safetensors") + `{}`, `text after the value`},
		{"invalid UTF-8", "{\"\xff\":1}", `index is not valid UTF-8`},
		{"list", `[]`, `index is not an object`},
		{"null", `null`, `index is not an object`},
		{"deep", strings.Repeat(`[`, 1<<20), `nested more than 100 deep`},
		{"no map", `{}`, `weight_map is missing`},
		{"map in other case", `{"Weight_Map":{"a":"x.safetensors"}}`, `weight_map is missing`},
		{"map null", `{"weight_map":null}`, `weight_map is not an object`},
		{"map a list", `{"weight_map":[]}`, `weight_map is not an object`},
		{"map empty", `{"weight_map":{}}`, `weight_map lists no tensors`},
		{"metadata a list", `{"metadata":[],"weight_map":{"a":"x.safetensors"}}`, `metadata is not an object`},
		{"file a number", `{"weight_map":{"a":1}}`, `tensor "a": file name is not a string`},
		{"file null", `{"weight_map":{"a":null}}`, `tensor "a": file name is not a string`},
		{"duplicate map", `{"weight_map":{},"weight_map":{}}`, `duplicate key "weight_map"`},
		{"duplicate tensor", `{"weight_map":{"a":"x.safetensors","\u0061":"x.safetensors"}}`, `duplicate key "a"`},
		{"duplicate in metadata", `{"metadata":{"k":[{"d":1,"d":1}]},"weight_map":{}}`, `duplicate key "d"`},

		{"absolute", file("/etc/x.safetensors"), `file name "/etc/x.safetensors" leaves the folder of the index`},
		{"parent", file("../x.safetensors"), `leaves the folder`},
		{"parent within", file("sub/../../x.safetensors"), `leaves the folder`},
		{"backslash", file(`..\\x.safetensors`), `leaves the folder`},
		{"drive", file("C:x.safetensors"), `leaves the folder`},
		{"drive and root", file("c:/x.safetensors"), `leaves the folder`},
		{"zero byte", file(`x\u0000.safetensors`), `leaves the folder`},
		{"no file name", file(""), `leaves the folder`},
		{"dot", file("./x.safetensors"), `is not a plain path`},
		{"double slash", file("sub//x.safetensors"), `is not a plain path`},
		{"pickle", file("x.bin"), `does not end in .safetensors`},
		{"folder", file("."), `does not end in .safetensors`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseIndex(tt.index, func(file string) {
				if err := checkShardName(file); err != nil {
					t.Errorf("would have opened %q: %v", file, err)
				}
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestParseIndex(t *testing.T) {
	var found []string
	x, err := parseIndex(`{"metadata":{"total_size":1.5e9},"weight_map":{"b":"sub/x.safetensors","a":"y.safetensors"},"more":[null]}`+"\n", func(file string) { found = append(found, file) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []entry{{"a", "y.safetensors"}, {"b", "sub/x.safetensors"}}; !slices.Equal(x.entries, want) {
		t.Errorf("got %v, want %v", x.entries, want)
	}
	if want := []string{"sub/x.safetensors", "y.safetensors"}; !slices.Equal(found, want) {
		t.Errorf("told of %q, want %q", found, want)
	}
	if string(x.metadata["total_size"]) != "1.5e9" {
		t.Errorf("got metadata %s", x.metadata)
	}
}

// FuzzIndex makes sure that what is accepted stays within its folder, and says
// what encoding/json reads.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":3},"weight_map":{"a":"x.safetensors","b":"sub/y.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../x.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"C:\\x.safetensors","a":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		found := map[string]bool{}
		x, err := parseIndex(string(b), func(file string) { found[file] = true })
		for file := range found { // they are opened before the index is known to be right
			rel, err := filepath.Rel("/dir", filepath.Join("/dir", filepath.FromSlash(file)))
			if err != nil || filepath.ToSlash(rel) != file {
				t.Fatalf("%q leads to %q, %v", file, rel, err)
			}
		}
		if err != nil {
			return
		}
		var members map[string]json.RawMessage
		var want map[string]string
		if err := errors.Join(json.Unmarshal(b, &members), json.Unmarshal(members["weight_map"], &want)); err != nil || len(want) != len(x.entries) {
			t.Fatalf("got %d tensors, want %d, %v", len(x.entries), len(want), err)
		}
		for _, e := range x.entries {
			if want[e.tensor] != e.file {
				t.Fatalf("tensor %q is in %q, want %q", e.tensor, e.file, want[e.tensor])
			}
			if !found[e.file] {
				t.Fatalf("did not tell of %q", e.file)
			}
		}
		if len(x.entries) == 0 {
			t.Fatal("accepted an index of nothing")
		}
	})
}

func TestOpenSetStaysBounded(t *testing.T) {
	var s openSet
	files := make([]*Shard, 4*maxOpen)
	for i := range files {
		files[i] = &Shard{}
	}
	for shard := range files {
		s.use(0) // in use all the time
		s.use(shard)
		if err := s.release(shard, files); err != nil {
			t.Fatal(err)
		}
		if len(s.recent) > maxOpen {
			t.Fatalf("%d shards are open, want at most %d", len(s.recent), maxOpen)
		}
	}
	if s.find(0) < 0 || s.find(1) >= 0 || s.find(len(files)-1) < 0 {
		t.Errorf("kept %v", s.recent)
	}
}
