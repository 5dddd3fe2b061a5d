package remote

import (
	"path"
	"path/filepath"
	"strings"
)

// Fetch returns the command by which a store's own tool brings what lies at a destination
// to the folder where it is called, and where it lies then; file is that of the folder
// which is wanted alone, "" for all of it.
func (s *storeSink) Fetch(folder bool, file string) (command, place string) {
	key := s.key
	if file != "" {
		key, folder = path.Join(key, file), false
	}
	scheme, bucket, _ := strings.Cut(s.address, "://")
	from, name := quoted(s.named(key)), path.Base(s.named(key))
	switch scheme {
	case "gs":
		if folder {
			return "gcloud storage cp -r " + from + " .", name
		}
		return "gcloud storage cp " + from + " .", name
	case "az":
		if folder {
			pattern, place := "", "."
			if key != "" {
				pattern, place = " --pattern "+quoted(key+"/*"), filepath.FromSlash(key)
			}
			return "az storage blob download-batch -s " + bucket + " -d ." + pattern, place
		}
		return "az storage blob download -c " + bucket + " -n " + quoted(key) + " -f " + quoted(name), name
	}
	if folder {
		return "aws s3 cp --recursive " + from + " " + quoted(name), name
	}
	return "aws s3 cp " + from + " " + quoted(name), name
}

// Fetch is as that of stores, by the hub's own command.
func (s *hubSink) Fetch(folder bool, file string) (command, place string) {
	_, name, _ := strings.Cut(s.repo, "/")
	command = "hf download " + s.repo
	switch in := path.Join(s.name, file); {
	case file != "" || !folder:
		command, place = command+" "+quoted(in), filepath.Join(name, filepath.FromSlash(in))
	case in != "":
		command, place = command+" --include "+quoted(in+"/*"), filepath.Join(name, filepath.FromSlash(in))
	default:
		place = name
	}
	if s.revision != "main" {
		command += " --revision " + quoted(s.revision)
	}
	return command + " --local-dir " + quoted(name), place
}

// Loaded is the name by which libraries load the repository from the hub, "" where they
// need more than a name: it lies in a folder there, or at a revision.
func (s *hubSink) Loaded() string {
	if s.name != "" || s.revision != "main" {
		return ""
	}
	return s.repo
}

// quoted is a word as shells take it.
func quoted(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+="
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
