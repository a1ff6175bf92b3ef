//! The texts that prompt lookup is measured on, in two halves: what is chosen
//! by one half is checked by the other.

pub(crate) const HALVES: [usize; 2] = [0, 1];

/// Whether the task is to say again what the prompt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Repeats,
    New,
}

pub(crate) struct Text {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// 0 or 1.
    pub(crate) half: usize,
    pub(crate) task: &'static str,
    /// What the task is about, in paragraphs.
    pub(crate) source: &'static [&'static str],
}

impl Text {
    /// Whether one of `wanted`, parted by commas, is its name, its half, its
    /// kind, both of these, or `all`.
    pub(crate) fn is_among(&self, wanted: &str) -> bool {
        let kind = format!("{:?}", self.kind).to_lowercase();
        let (half, both) = (self.half.to_string(), format!("{kind} {}", self.half));
        wanted.split(',').map(str::trim).any(|wanted| ["all", self.name, &half, &kind, &both].contains(&wanted))
    }

    pub(crate) fn prompt(&self) -> String {
        format!("<|im_start|>user\n{}{}<|im_end|>\n<|im_start|>assistant\n", self.task, self.source.join("\n\n"))
    }
}

const fn repeats(name: &'static str, half: usize, task: &'static str, source: &'static [&'static str]) -> Text {
    Text { name, kind: Kind::Repeats, half, task, source }
}

const fn new(name: &'static str, half: usize, task: &'static str) -> Text {
    Text { name, kind: Kind::New, half, task, source: &[] }
}

const HARBOUR: &str = "The harbour of Larsund was built in 1874 by the engineer Ida Falk. It has three basins, a \
                       stone pier of four hundred metres, and a lighthouse that was lit by gas until 1931. Today \
                       ferries leave for the islands every hour, and a museum shows the tools of the builders.";

const BEES: &str = "A colony of bees has one queen, a few hundred drones and up to fifty thousand workers. The workers \
                    live for six weeks in summer. In their first days they clean the cells, then they feed the larvae, \
                    build the comb and guard the entrance, and only in their last three weeks do they fly out for \
                    nectar. A worker brings home about a twelfth of a teaspoon of honey in her whole life.";

const LETTER: &str = "Dear Mr Olsen, thank you for your order of 12 March. We are sorry to tell you that the green \
                      kettle is not in stock at the moment. We expect a new delivery on 2 April and will send yours on \
                      the same day. If you would like another colour, or your money back, please write to us. Yours \
                      sincerely, Marta Lind, Lind & Sons";

const CODE: &str = "def total(prices, rate):\n    result = 0\n    for price in prices:\n        if price < 0:\n            \
                    raise ValueError(\"a price is negative\")\n        result += price\n    result += result * \
                    rate\n    return result\n\ndef mean(prices):\n    if not prices:\n        return 0\n    return \
                    sum(prices) / len(prices)\n";

const RECORDS: &str = "name: Anna Berg, city: Oslo, age: 34, job: carpenter\nname: Jon Dahl, city: Bergen, age: 51, \
                       job: teacher\nname: Eva Moe, city: Tromso, age: 28, job: pilot\nname: Nils Vik, city: Bodo, \
                       age: 45, job: baker\n";

const MEETING: &str = "Minutes of 4 May. Present: Karin, Tom, Lucia. Karin reported that the new website had 2,400 \
                       visitors in its first week. Tom said that the printer on the second floor is broken again and \
                       that a repair would cost 310 euros. Lucia will ask two other firms for a price. It was decided \
                       to move the summer party to 19 June, because the hall is not free on 12 June. Next meeting: 18 \
                       May at ten.";

const MISTAKE: &str = "The library is open from nine to six on weekdays and from ten to two on Saturdays. Books may be \
                       borowed for four weeks, films for one. Whoever brings something back late pays twenty cents a \
                       day. On the first floor there are twelve tables for reading, and a room for groups that can be \
                       booked at the desk or by telephone.";

pub(crate) const TEXTS: [Text; 26] = [
    repeats("copy", 0, "Repeat this text word for word:\n", &[HARBOUR]),
    repeats(
        "edit a year",
        0,
        "Write this text again, with 1931 changed to 1932 and nothing else changed:\n",
        &[HARBOUR],
    ),
    repeats(
        "extract years",
        0,
        "Quote the sentences of this text that name a year, exactly as they are:\n",
        &[HARBOUR],
    ),
    repeats("summary of bees", 0, "Summarize this text in two sentences:\n", &[BEES]),
    repeats("correct a letter", 0, "Correct the spelling of this letter and print the whole letter:\n", &[LETTER]),
    repeats(
        "rename in code",
        0,
        "Rename the variable `result` to `amount` in this code and print all of it:\n",
        &[CODE],
    ),
    repeats("records to lines", 0, "Print these records again, one line each, without the age:\n", &[RECORDS]),
    repeats("correct a mistake", 0, "Write this text again with its spelling mistake corrected:\n", &[MISTAKE]),
    repeats("extract names", 0, "List the name and the city of each person:\n", &[RECORDS]),
    repeats(
        "edit a long text",
        0,
        "Replace 'harbour' by 'port' and print all of the text:\n",
        &[HARBOUR, BEES, LETTER],
    ),
    repeats("copy a letter", 1, "Copy the following letter exactly:\n", &[LETTER]),
    repeats("edit a number", 1, "Replace 'six weeks' by 'seven weeks' and print the whole text:\n", &[BEES]),
    repeats("extract decisions", 1, "Quote from these minutes what was decided and what will be done:\n", &[MEETING]),
    repeats("summary of minutes", 1, "Summarize:\n", &[MEETING]),
    repeats("comment code", 1, "Add a comment to each function and print the whole code again:\n", &[CODE]),
    repeats("records to JSON", 1, "Write these records as a JSON array of objects:\n", &[RECORDS]),
    repeats("quote a paragraph", 1, "Quote the paragraph about bees word for word:\n", &[HARBOUR, BEES, MEETING]),
    repeats("summary of a letter", 1, "Write a summary of this letter:\n", &[LETTER]),
    repeats("copy a long text", 1, "Repeat this text word for word:\n", &[MEETING, HARBOUR, LETTER]),
    new("story", 0, "Write a long story about a fox who learns to sail."),
    new("ideas", 0, "Give many different ideas for a birthday party."),
    new("explanation", 0, "Explain how a refrigerator works, to a child."),
    new("poem", 1, "Write a poem about the sea in winter."),
    new("recipe", 1, "How do I bake a loaf of bread? Give all steps."),
    new("code", 1, "Write a Python class for a bank account with tests."),
    new("opinion", 1, "What are the advantages and disadvantages of living in a small town?"),
];
