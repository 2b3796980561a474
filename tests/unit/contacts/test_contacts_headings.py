"""Headings of address books and of other systems."""

import pytest

from distmark.contacts.headings import read_headings

OUTLOOK_JA = {"姓": "last_name", "名": "first_name", "会社名": "company", "会社電話": "phone", "自宅電話": "phone", "携帯電話": "phone"} | {
    "会社 FAX": "会社_fax",
    "電子メール アドレス": "email",
    "電子メール 2 アドレス": "email",
    "電子メールの種類": "電子メールの種類",
    "電子メール表示名": "電子メール表示名",
    "市区町村 (自宅)": "city",
    "誕生日": "birthday",
}
OUTLOOK_EN = {"First Name": "first_name", "Last Name": "last_name", "Company": "company", "Business Phone": "phone"} | {
    "Mobile Phone": "phone",
    "Business Fax": "business_fax",
    "E-mail Address": "email",
    "E-mail 2 Address": "email",
    "E-mail Display Name": "e_mail_display_name",
    "Home City": "city",
}
GOOGLE = {"Name": "full_name", "Given Name": "first_name", "Family Name": "last_name", "E-mail 1 - Type": "e_mail_1_type"} | {
    "E-mail 1 - Value": "email",
    "Phone 1 - Value": "phone",
    "Organization 1 - Name": "organization_1_name",
    "Organization Name": "company",
    "Address 1 - City": "city",
    "Birthday": "birthday",
}
HUBSPOT = {"First Name": "first_name", "Email": "email", "Phone Number": "phone", "Mobile Phone Number": "phone", "Company Name": "company"}
SALESFORCE = {
    "FirstName": "first_name",
    "LastName": "last_name",
    "MobilePhone": "phone",
    "MailingCity": "city",
    "Birthdate": "birthday",
} | {
    "Account Name": "company",
    "HasOptedOutOfEmail": "stopped_email",
    "HasOptedOutOfFax": "hasoptedoutoffax",
    "DoNotCall": "stopped_sms",
}
MAILCHIMP = {"Email Address": "email", "First Name": "first_name", "UNSUB_TIME": "stopped_email", "OPTIN_TIME": "optin_time"}
CARDS = {"氏名": "full_name", "メールアドレス1": "email", "E-mail(自宅)": "email", "TEL(自宅)": "phone", "携帯電話番号": "phone"} | {
    "自宅TEL": "phone",
    "勤務先": "company",
    "フリガナ": "フリガナ",
    "連名": "連名",
    "Email (home)": "email",
    "担当者メール": "担当者メール",
}


@pytest.mark.parametrize("columns", [OUTLOOK_JA, OUTLOOK_EN, GOOGLE, HUBSPOT, SALESFORCE, MAILCHIMP, CARDS])
def test_columns_of_other_programs_are_known(columns: dict[str, str]):
    assert dict(zip(columns, read_headings(list(columns)), strict=True)) == columns


@pytest.mark.parametrize(
    ("heading", "field"),
    [
        *(("配信拒否", "stopped"), ("メール配信停止日", "stopped_email"), ("SMS拒否", "stopped_sms"), ("DM不可フラグ", "stopped")),
        *(("Unsubscribed from all email", "stopped_email"), ("Do Not Contact", "stopped"), ("SMS Opt Out", "stopped_sms")),
        *(
            ("メール同意", "consent_email"),
            ("メール配信", "consent_email"),
            ("SMS Opt In", "consent_sms"),
            ("DM", "dm"),
        ),
        *(("unsubscribe_url", "unsubscribe_url"), ("配信停止リンク", "配信停止リンク"), ("郵送DM不要", "郵送dm不要")),
        *(("連絡不可時間帯", "連絡不可時間帯"), ("Email Domain", "email_domain"), ("配信日", "配信日")),
    ],
)
def test_columns_of_consent_and_refusal_are_told_from_others(heading: str, field: str):
    assert read_headings([heading, "email"])[0] == field
