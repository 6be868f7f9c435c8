# PowerShell completion for kubectl-tka. In $PROFILE: kubectl-tka completion powershell | Out-String | Invoke-Expression

Register-ArgumentCompleter -Native -CommandName 'kubectl-tka', 'kubectl-tka.exe' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $words = @($commandAst.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |
        ForEach-Object { if ($_.Value -is [string]) { $_.Value } else { $_.Extent.Text } })
    # Legacy argument passing drops an empty argument; two quotes stand for one.
    $legacy = $PSNativeCommandArgumentPassing -notin 'Standard', 'Windows'
    $words += if ($wordToComplete -eq '' -and $legacy) { '""' } else { $wordToComplete }

    # The last line only tells other shells whether a space or a file name may follow.
    $rows = @(& kubectl-tka __complete @words 2>$null) | Select-Object -SkipLast 1
    # Only the value of --flag=value is listed, but the whole word is inserted.
    $prefix = if ($wordToComplete -match '^-.*=') { $Matches[0] } else { '' }
    foreach ($row in $rows) {
        $text, $description = $row.Split("`t", 2)
        if (-not $description) { $description = $text }
        $word = $prefix + $text
        # Quote characters such as a comma or an @, which are special in PowerShell.
        if ($word -match '[^A-Za-z0-9_./:=+-]') { $word = "'" + $word.Replace("'", "''") + "'" }
        [System.Management.Automation.CompletionResult]::new($word, $text, 'ParameterValue', $description)
    }
}
