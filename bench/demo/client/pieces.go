package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const (
	pieceSize = 1 << 20 // of plaintext, so that a request stays below the server's limit of 4 MiB
	maxPiece  = pieceSize + 1024
)

// pieceContext is the encryption context of a piece: it opens in its place only.
func pieceContext(number int) map[string]string {
	return map[string]string{"piece": strconv.Itoa(number)}
}

// encrypt sends src in pieces and writes each ciphertext after its length.
func (a application) encrypt(ctx context.Context, dst io.Writer, src io.Reader) error {
	piece := make([]byte, pieceSize)
	for number := 0; ; number++ {
		n, err := io.ReadFull(src, piece)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		response, err := a.crypto.Encrypt(ctx, &keywrightv1.EncryptRequest{
			Namespace: a.namespace, Key: a.key, Plaintext: piece[:n], EncryptionContext: pieceContext(number)})
		if err != nil {
			return err
		}
		if err := writePiece(dst, response.GetCiphertext()); err != nil {
			return err
		}
	}
}

func writePiece(dst io.Writer, ciphertext []byte) error {
	if err := binary.Write(dst, binary.BigEndian, uint32(len(ciphertext))); err != nil {
		return err
	}
	_, err := dst.Write(ciphertext)
	return err
}

// decrypt is the inverse of encrypt.
func (a application) decrypt(ctx context.Context, dst io.Writer, src io.Reader) error {
	for number := 0; ; number++ {
		ciphertext, err := readPiece(src)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response, err := a.crypto.Decrypt(ctx, &keywrightv1.DecryptRequest{
			Namespace: a.namespace, Key: a.key, Ciphertext: ciphertext, EncryptionContext: pieceContext(number)})
		if err != nil {
			return err
		}
		if _, err := dst.Write(response.GetPlaintext()); err != nil {
			return err
		}
	}
}

// readPiece returns io.EOF where the input ends between two pieces.
func readPiece(src io.Reader) ([]byte, error) {
	var size uint32
	if err := binary.Read(src, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	if size > maxPiece {
		return nil, fmt.Errorf("a piece of %d bytes: this is not what encrypt wrote", size)
	}
	ciphertext := make([]byte, size)
	if _, err := io.ReadFull(src, ciphertext); err != nil {
		return nil, fmt.Errorf("the last piece was cut: %w", io.ErrUnexpectedEOF)
	}
	return ciphertext, nil
}
