// Makes a key pair of sigstore's format in a folder, and copies an image to a registry with a
// signature by that key, as `skopeo copy --all --preserve-digests --sign-by-sigstore-private-key`
// does. That of Debian 12 cannot: it is built without sigstore.
package main

import (
	"context"
	"log"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/signature/sigstore"
	"go.podman.io/image/v5/transports/alltransports"
	"go.podman.io/image/v5/types"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: push-signed FOLDER FROM TO")
	}
	if err := push(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func push(folder, from, to string) error {
	passphrase := []byte("made for this test")
	pair, err := sigstore.GenerateKeyPair(passphrase)
	if err != nil {
		return err
	}
	private := filepath.Join(folder, "pause.key")
	if err := os.WriteFile(private, pair.PrivateKey, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "pause.pub"), pair.PublicKey, 0o644); err != nil {
		return err
	}
	source, err := alltransports.ParseImageName(from)
	if err != nil {
		return err
	}
	destination, err := alltransports.ParseImageName(to)
	if err != nil {
		return err
	}
	// The policy is for those who take the image.
	anything := signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: anything})
	if err != nil {
		return err
	}
	_, err = copy.Image(context.Background(), policy, destination, source, &copy.Options{
		DestinationCtx:                   &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue},
		ImageListSelection:               copy.CopyAllImages,
		PreserveDigests:                  true,
		SignBySigstorePrivateKeyFile:     private,
		SignSigstorePrivateKeyPassphrase: passphrase,
	})
	return err
}
