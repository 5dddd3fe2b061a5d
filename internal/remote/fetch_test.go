package remote

import (
	"path/filepath"
	"testing"
)

// TestFetch: what brings an output here is the command of whoever keeps it.
func TestFetch(t *testing.T) {
	hub := func(name string) *hubSink { return &hubSink{&hub{repo: "org/model", revision: "main"}, name} }
	store := func(scheme, key string) *storeSink { return &storeSink{newBucket(scheme, "models"), key} }
	for _, tt := range []struct {
		to interface {
			Fetch(folder bool, file string) (command, place string)
		}
		folder               bool
		file, command, place string
	}{
		{store("s3", "a/b"), true, "", "aws s3 cp --recursive s3://models/a/b b", "b"},
		{store("s3", "a/b"), true, "x.safetensors", "aws s3 cp s3://models/a/b/x.safetensors x.safetensors", "x.safetensors"},
		{store("s3", "it's b.safetensors"), false, "", `aws s3 cp 's3://models/it'\''s b.safetensors' 'it'\''s b.safetensors'`, "it's b.safetensors"},
		{store("s3", ""), true, "", "aws s3 cp --recursive s3://models models", "models"},
		{store("gs", "a/b"), true, "", "gcloud storage cp -r gs://models/a/b .", "b"},
		{store("gs", "a/b.safetensors"), false, "", "gcloud storage cp gs://models/a/b.safetensors .", "b.safetensors"},
		{store("az", "a/b"), true, "", "az storage blob download-batch -s models -d . --pattern 'a/b/*'", "a/b"},
		{store("az", ""), true, "", "az storage blob download-batch -s models -d .", "."},
		{store("az", "a/b.safetensors"), false, "", "az storage blob download -c models -n a/b.safetensors -f b.safetensors", "b.safetensors"},
		{hub(""), true, "", "hf download org/model --local-dir model", "model"},
		{hub("a"), true, "", "hf download org/model --include 'a/*' --local-dir model", "model/a"},
		{hub("a"), true, "x.safetensors", "hf download org/model a/x.safetensors --local-dir model", "model/a/x.safetensors"},
		{hub("x.safetensors"), false, "", "hf download org/model x.safetensors --local-dir model", "model/x.safetensors"},
	} {
		if command, place := tt.to.Fetch(tt.folder, tt.file); command != tt.command || filepath.ToSlash(place) != tt.place {
			t.Errorf("%s at %s, want %s at %s", command, place, tt.command, tt.place)
		}
	}
}
