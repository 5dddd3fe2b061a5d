package stage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
)

func wantError(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (!errors.Is(err, usage.Err) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want a usage error that holds %q", name, err, want)
	}
}

// TestCheck: nothing that someone has may be overwritten by mistake.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	for _, name := range []string{"src/model.safetensors", "src/config.json", "out/model.safetensors", "photos/a.jpg", "file.safetensors"} {
		write(t, at(name), "x")
	}
	if err := os.Mkdir(at("empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dest    string
		folder, force bool
		want          string // "" for none
	}{
		{"a new folder", "new", true, false, ""},
		{"a new file", "new.safetensors", false, false, ""},
		{"a sibling's longer name", "src2", true, false, ""},
		{"a new file beside the source", "src/new.safetensors", false, true, "lies in the source"},
		{"the source's folder", "src", true, true, "lies in the source"},
		{"the source by another way", "out/../src/", true, true, "lies in the source"},
		{"deep in the source", "src/a/b/c", true, true, "lies in the source"},
		{"a folder that holds the source", ".", true, true, "holds the source"},
		{"a folder that is there", "out", true, false, "exists: name another destination, or give `Force`"},
		{"a folder to replace", "out", true, true, ""},
		{"an empty folder", "empty", true, false, "exists"},
		{"an empty folder to replace", "empty", true, true, ""},
		{"a folder of other things", "photos", true, true, "holds a.jpg"},
		{"a file that is there", "file.safetensors", false, false, "exists"},
		{"a file to replace", "file.safetensors", false, true, ""},
		{"a file for a folder", "file.safetensors", true, true, "exists and is a file"},
		{"a folder for a file", "out", false, true, "exists and is a folder"},
		{"a place in a file", "file.safetensors/x", true, true, "lies in what is no folder"},
	}
	for _, tt := range tests {
		o := Output{Dest: at(tt.dest), Folder: tt.folder, Force: tt.force, Sources: []string{at("src")}, Contents: Contents{Stems: map[string]string{"": "model"}}}
		err := Check(o)
		wantError(t, tt.name, err, tt.want)
		if exists := strings.HasPrefix(tt.want, "exists") || strings.HasPrefix(tt.want, "holds a.jpg"); exists != errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v is fs.ErrExist: %v", tt.name, err, !exists)
		}
	}
	source := []string{at("src/model.safetensors")}
	wantError(t, "the source itself", Check(Output{Dest: source[0], Force: true, Sources: source}), "lies in the source")
	wantError(t, "the folder of a source file", Check(Output{Dest: at("src"), Folder: true, Force: true, Sources: source}), "holds the source")
	wantError(t, "a file beside a source file", Check(Output{Dest: at("src/new.safetensors"), Sources: source}), "")
	wantError(t, "the root of the disk", Check(Output{Dest: filepath.VolumeName(dir) + string(filepath.Separator), Folder: true, Force: true}), "is the root of a disk")
	t.Chdir(at("empty"))
	for _, dest := range []string{".", at("empty"), "..", "../empty/"} {
		wantError(t, "the folder that one is in as "+dest, Check(Output{Dest: dest, Folder: true, Force: true}), "is the folder that you work in")
	}
}

// TestStrays: --force replaces what an output consists of, and nothing else that lies
// in the same folder.
func TestStrays(t *testing.T) {
	const index = `{"_class_name": "P", "transformer": ["diffusers", "T"], "old_encoder": ["transformers", "E"], "loras": "x", "../up": ["a", "b"]}`
	model := Contents{Files: []string{"model.safetensors", "config.json", "words/vocab.txt", "README.md"}, Stems: map[string]string{"": "model"}}
	pipeline := Contents{
		Files: []string{"model_index.json", "vae/diffusion_pytorch_model.safetensors", "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"},
		Stems: map[string]string{"transformer": "diffusion_pytorch_model"},
	}
	tests := []struct {
		name string
		of   Contents
		held []string
		want string
	}{
		{"the same again", model, []string{"model.safetensors", "config.json", "words/vocab.txt", "README.md"}, ""},
		{"shards, of which there were more", model, []string{"model-00001-of-00123.safetensors", "model-00123-of-00123.safetensors", "model.safetensors.index.json"}, ""},
		{"descriptions", model, []string{"generation_config.json", "quantization_config.json"}, ""},
		{"what a file manager leaves", model, []string{"model.safetensors", ".DS_Store"}, ""},
		{"notes", model, []string{"model.safetensors", "notes.txt"}, "notes.txt"},
		{"weights of another name", model, []string{"model.safetensors", "other.safetensors"}, "other.safetensors"},
		{"weights with a longer stem", model, []string{"model-v2.safetensors", "model.fp16.safetensors"}, "model-v2.safetensors model.fp16.safetensors"},
		{"weights of a loader's other name", model, []string{"diffusion_pytorch_model.safetensors"}, "diffusion_pytorch_model.safetensors"},
		{"pickles", model, []string{"pytorch_model.bin"}, "pytorch_model.bin"},
		{"folders", model, []string{"model.safetensors", "loras/a.safetensors", ".git/HEAD", ".env"}, ".env .git/ loras/"},
		{"a folder of the source with more in it", model, []string{"words/vocab.txt", "words/mine.txt", "words/deep/x"}, "words/deep/ words/mine.txt"},
		{"models by folders", model, []string{"a/model.safetensors", "a/config.json", "b/config.json"}, "a/ b/"},
		{"shards of a variant", Contents{Stems: map[string]string{"": "model.fp16"}}, []string{"model.fp16-00001-of-00002.safetensors", "model.safetensors.index.fp16.json", "model.safetensors.index.json"}, "model.safetensors.index.json"},
		{"a pipeline", pipeline, []string{"model_index.json=" + index, "transformer/diffusion_pytorch_model-00001-of-00002.safetensors", "vae/diffusion_pytorch_model.safetensors"}, ""},
		{"a pipeline of more components", pipeline, []string{"model_index.json=" + index, "old_encoder/model.safetensors", "old_encoder/tokenizer.json"}, ""},
		{"a pipeline in whose place a model is to be", model, []string{"model_index.json=" + index, "transformer/config.json", "old_encoder/model.safetensors"}, "old_encoder/ transformer/"},
		{"what lies among them", pipeline, []string{"model_index.json=" + index, "model.safetensors", "loras/x.safetensors", "transformer/lora.safetensors", "transformer/.git/HEAD", "scheduler/scheduler_config.json"},
			"loras/ model.safetensors scheduler/ transformer/.git/ transformer/lora.safetensors"},
		{"a pipeline that names nothing", pipeline, []string{"model_index.json=no JSON", "old_encoder/model.safetensors"}, "old_encoder/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, held := range tt.held {
				name, text, _ := strings.Cut(held, "=")
				write(t, filepath.Join(dir, filepath.FromSlash(name)), text)
			}
			got, err := tt.of.strays(dir)
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestStrayLinks: a link is nobody's output, and what it leads to is not looked at.
func TestStrayLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "precious", "model.safetensors"), "x")
	out := filepath.Join(dir, "out")
	write(t, filepath.Join(out, "config.json"), "x")
	symlink(t, filepath.Join(dir, "precious"), filepath.Join(out, "words"))
	symlink(t, filepath.Join(dir, "precious", "model.safetensors"), filepath.Join(out, "model.safetensors"))
	c := Contents{Files: []string{"words/model.safetensors"}, Stems: map[string]string{"": "model"}}
	wantError(t, "links", Check(Output{Dest: out, Folder: true, Force: true, Contents: c}), "holds model.safetensors, words,")
}

func symlink(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		if runtime.GOOS == "windows" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
}

// TestCheckSeesThroughLinks: a destination may be the source under another
// name.
func TestCheckSeesThroughLinks(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("src/model.safetensors"), "x")
	if err := os.Link(at("src/model.safetensors"), at("hard.safetensors")); err != nil {
		t.Skip(err)
	}
	for name, to := range map[string]string{"folder": "src", "soft.safetensors": "src/model.safetensors", "new": "src/new", "loop": "loop"} {
		symlink(t, at(to), at(name))
	}
	tests := []struct {
		name, dest string
		folder     bool
		source     string
		want       string
	}{
		{"a hard link", "hard.safetensors", false, "src/model.safetensors", "is the source"},
		{"a link to the source", "soft.safetensors", false, "src/model.safetensors", "lies in the source"},
		{"a link to the folder", "folder", true, "src/model.safetensors", "holds the source"},
		{"a file below a link", "folder/model.safetensors", false, "src/model.safetensors", "lies in the source"},
		{"a new folder below a link", "folder/new", true, "src", "lies in the source"},
		{"a source that is a link", "src/new", true, "folder", "lies in the source"},
		{"a link to nothing in the source", "new", true, "src", "lies in the source"},
		{"a link to itself", "loop", true, "src", "leads back to itself"},
	}
	for _, tt := range tests {
		wantError(t, tt.name, Check(Output{Dest: at(tt.dest), Folder: tt.folder, Force: true, Sources: []string{at(tt.source)}}), tt.want)
	}
}
