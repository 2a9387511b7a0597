package hsmtest

import "sync"

const functionCount = 68

// functions is the function list of PKCS#11 v2.40, in its order (CK_FUNCTION_LIST).
var functions = [functionCount]string{
	"C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList",
	"C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo", "C_GetMechanismList", "C_GetMechanismInfo",
	"C_InitToken", "C_InitPIN", "C_SetPIN",
	"C_OpenSession", "C_CloseSession", "C_CloseAllSessions", "C_GetSessionInfo",
	"C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout",
	"C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize",
	"C_GetAttributeValue", "C_SetAttributeValue",
	"C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal",
	"C_EncryptInit", "C_Encrypt", "C_EncryptUpdate", "C_EncryptFinal",
	"C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal",
	"C_DigestInit", "C_Digest", "C_DigestUpdate", "C_DigestKey", "C_DigestFinal",
	"C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal", "C_SignRecoverInit", "C_SignRecover",
	"C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal", "C_VerifyRecoverInit", "C_VerifyRecover",
	"C_DigestEncryptUpdate", "C_DecryptDigestUpdate", "C_SignEncryptUpdate", "C_DecryptVerifyUpdate",
	"C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey",
	"C_SeedRandom", "C_GenerateRandom", "C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
}

// tokenFunctions are those that cannot be answered without the token, and that
// Keywright calls.
var tokenFunctions = map[string]bool{
	"C_GetTokenInfo": true, "C_OpenSession": true, "C_CloseSession": true, "C_GetSessionInfo": true,
	"C_Login": true, "C_CreateObject": true, "C_DestroyObject": true, "C_GetAttributeValue": true,
	"C_FindObjectsInit": true, "C_FindObjects": true, "C_FindObjectsFinal": true,
	"C_EncryptInit": true, "C_Encrypt": true, "C_DecryptInit": true, "C_Decrypt": true,
	"C_SignInit": true, "C_Sign": true, "C_GenerateKey": true, "C_GenerateKeyPair": true,
	"C_WrapKey": true, "C_UnwrapKey": true, "C_DeriveKey": true, "C_GenerateRandom": true,
}

var numbers = sync.OnceValue(func() map[string]int {
	byName := map[string]int{}
	for i, name := range functions {
		byName[name] = i
	}
	return byName
})
